"""Looks: who looks again after more replicates, and stops when it pleases, errs more often. What each look may use.

Of the 5% of studies that may name something falsely, looks on the way to a last one share `PART` of what is left in
proportion to the replicates (spending functions: Lan & DeMets 1983); a look that nobody declared is its own last one.
So something is always left. The levels of all looks are simply added up, which holds however alike looks are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.attribution.correction import SIGNIFICANT

PART = 0.8


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


def look_after(replicates: int, taken: Sequence[Look], most: int = 0) -> Look:
    """Return the look after some replicates: as it was taken, or with the error that it may use.

    Parameters
    ----------
    replicates
        After how many.
    taken
        Earlier looks.
    most
        How many replicates were called for, or are declared to be the most; 0 where nobody said.
    """
    for look in taken:
        if look.replicates == replicates:
            return look
    left = SIGNIFICANT - sum(look.level for look in taken)
    before = max((look.replicates for look in taken if look.replicates < replicates), default=0)
    return Look(replicates, PART * left * (replicates - before) / (max(most, replicates) - before))


def last_look(declared: Sequence[int], taken: Sequence[Look] = ()) -> Look:
    """Return the last of declared looks, with the error that it may use if all before it are taken."""
    every = list(taken)
    for count in declared:
        look = look_after(count, every, declared[-1])
        every += [look] if look not in every else []
    return look_after(declared[-1], every)
