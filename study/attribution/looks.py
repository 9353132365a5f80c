"""Looks: who looks again after more replicates, and stops when it pleases, errs more often. What each look may use.

Of the 5% of studies that may name something falsely, looks on the way to a last one share `PART` of what is left in
proportion to the replicates (spending functions: Lan & DeMets 1983); a look that nobody declared is its own last one.
So something is always left. What a look spends is for studies that err in it and in no earlier one; as looks at mostly
the same trials err together, its own level is higher than that (`level_of`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize, stats

from study.attribution.correction import SIGNIFICANT
from study.attribution.layout import Floats

PART = 0.8
# Looks err together less the rarer an error is. So rare is that of one of so many tests, more than a study has.
TESTS = 1000
# Steps of the numerical integration, the largest sum, in standard deviations, and the most replicates that it is for.
STEPS, FARTHEST, MOST = 400, 37.0, 1000


@dataclass(frozen=True)
class Look:
    """A look at a study.

    Attributes
    ----------
    replicates
        After how many.
    level
        In how many studies it may err, by itself.
    spent
        How much of the 5% that uses: in how many studies it may err that no earlier look errs in.
    open
        What it left open, of a study that goes on until nothing is; None if that was not asked.
    """

    replicates: int
    level: float
    spent: float
    open: tuple[str, ...] | None = None


def look_after(replicates: int, taken: Sequence[Look], most: int = 0) -> Look:
    """Return the look after some replicates: as it was taken, or with the error that it may make.

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
    # By rounding alone looks without end would use all of it.
    left = max(SIGNIFICANT - sum(look.spent for look in taken), np.finfo(float).eps)
    earlier = sorted((look.replicates, look.level) for look in taken if look.replicates < replicates)
    before = earlier[-1][0] if earlier else 0
    spent = PART * left * (replicates - before) / (max(most, replicates) - before)
    return Look(replicates, level_of(spent, replicates, tuple(earlier)), spent)


def last_look(declared: Sequence[int], taken: Sequence[Look] = ()) -> Look:
    """Return the last of declared looks, with the error that it may make if all before it are taken."""
    every = list(taken)
    for count in declared:
        look = look_after(count, every, declared[-1])
        every += [look] if look not in every else []
    return look_after(declared[-1], every)


@cache
def level_of(spent: float, replicates: int, earlier: tuple[tuple[int, float], ...]) -> float:
    """Return the level of a look that errs in so many studies in which no earlier one errs.

    Parameters
    ----------
    spent
        The probability of that.
    replicates
        After how many it is.
    earlier
        Replicates and level of each look at fewer, in this order.

    Notes
    -----
    A test of a mean is a sum over replicates that leaves a band; sums grow by what each replicate adds, normal and
    independent. The density of sums that left no earlier band is carried from look to look by numerical integration
    (Armitage, McPherson & Rowe 1969), and the band is sought that so many leave now. With t tests of few degrees of
    freedom looks err together a little less than that; `tests/attribution/test_looks.py` counts them.
    """
    if replicates > MOST:
        return spent  # always safe: as if looks never erred together
    sums, weights = _inside(earlier)
    before = earlier[-1][0] if earlier else 0
    step, unit = np.sqrt(replicates - before), np.sqrt(replicates)

    def excess(edge: float) -> float:
        beyond = stats.norm.sf((edge - sums) / step) + stats.norm.sf((edge + sums) / step)
        return float(np.log(max(weights @ beyond, np.finfo(float).tiny)) - np.log(spent / TESTS))

    edge = optimize.brentq(excess, 0.0, FARTHEST * unit)
    # No less than what it spends: by rounding alone it would be.
    return max(spent, float(2 * TESTS * stats.norm.sf(edge / unit)))


@cache
def _inside(looks: tuple[tuple[int, float], ...]) -> tuple[Floats, Floats]:
    """Return sums within the last look's band, and the probabilities that one ends there and never left a band."""
    if not looks:
        return np.zeros(1), np.ones(1)
    sums, weights = _inside(looks[:-1])
    count, level = looks[-1]
    step = np.sqrt(count - looks[-2][0]) if len(looks) > 1 else np.sqrt(count)
    edge = stats.norm.isf(level / TESTS / 2) * np.sqrt(count)
    inside = np.linspace(-edge, edge, max(STEPS, int(8 * edge / step)) + 1)
    width = np.full(len(inside), inside[1] - inside[0])
    width[[0, -1]] /= 2
    return inside, width * (stats.norm.pdf((inside[:, None] - sums) / step) / step @ weights)
