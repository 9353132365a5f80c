"""Looks: who looks again after more replicates, and stops when it pleases, errs more often. What each look may use.

Of the 5% of studies that may name something falsely, looks that are declared beforehand share `PART` in proportion to
the replicates (spending functions: Lan & DeMets 1983). A look that nobody declared, a first one too, uses `PART` of
what is left, so that something always is. The levels of all looks are simply added up, which holds however alike
looks are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.attribution.correction import SIGNIFICANT

PART = 0.8
# Of a look for which nothing is left.
TINY = 1e-9


@dataclass(frozen=True)
class Look:
    """A look at a study.

    Attributes
    ----------
    replicates
        After how many.
    level
        How much of the 5% it may use.
    open
        What it left open, of a study that goes on until nothing is; None if that was not asked.
    """

    replicates: int
    level: float
    open: tuple[str, ...] | None = None


def look_after(replicates: int, taken: Sequence[Look], declared: Sequence[int] = ()) -> Look:
    """Return the look after some replicates: as it was taken, or with the error that it may use.

    Parameters
    ----------
    replicates
        After how many.
    taken
        Earlier looks.
    declared
        After how many replicates looks were declared, in order; empty if none were.
    """
    for look in taken:
        if look.replicates == replicates:
            return look
    used = sum(look.level for look in taken)
    level = PART * (SIGNIFICANT - used)
    if replicates in declared:
        level = PART * SIGNIFICANT * replicates / declared[-1] - used
    return Look(replicates, max(level, TINY))


def last_look(declared: Sequence[int]) -> Look:
    """Return the last of declared looks, with the error that it may use if all before it are taken."""
    taken: list[Look] = []
    for count in declared:
        taken.append(look_after(count, taken, declared))
    return taken[-1]
