"""How many more replicates would tell, and how likely so many are to: what may be true, and what they may then find.

Of all that the truth may be by the intervals' own pivots (assurance; O'Hagan et al. 2005).
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from study.attribution import (
    SIGNIFICANT,
    Attribution,
    Effect,
    Floats,
    Layout,
    Squares,
    effect_draws,
    share_bounds,
)
from study.verdict.power import expected_squares

# Beyond this many replicates "more replicates" is no advice any more.
MOST_REPLICATES = 30
# Draws of what the truth may be, and of what an interval's ends may; and how likely an answer is to be promised.
TRUTHS, DRAWS, ASSURED = 40, 64, 0.8


def replicates_needed(found: Attribution, layout: Layout, level: float = SIGNIFICANT) -> int | None:
    """Return how many replicates in all make one share's interval clear the others with a probability of 80%.

    None if `MOST_REPLICATES` are not enough. `level` is the error that the look after them may use.
    """
    truth = _truths(found, layout)

    def settled(count: int) -> bool:
        return _settled(truth, found.replicates, layout, count, level) >= ASSURED

    low, high = found.replicates, MOST_REPLICATES
    if low >= high or not settled(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if settled(middle) else (middle, high)
    return high


def will_settle(found: Attribution, layout: Layout, count: int, level: float = SIGNIFICANT) -> float:
    """Return the probability that so many replicates make one share's interval clear the others."""
    return _settled(_truths(found, layout), found.replicates, layout, count, level)


def _settled(truth: tuple[Floats, Floats], now: int, layout: Layout, count: int, level: float) -> float:
    """Return the share of studies of so many replicates, one for each truth, in which one share is clear."""
    errors, noncentrality = truth
    random = np.random.default_rng(count)
    stratum = np.array([term.stratum for term in layout.terms])
    df = np.array([term.df for term in layout.terms], dtype=float)
    error_df = layout.stratum_df * (count - 1)
    error = errors * random.chisquare(error_df, errors.shape)
    effect = errors[:, stratum] * random.noncentral_chisquare(df, noncentrality * count / now)
    made = Squares(np.zeros((TRUTHS, layout.cells)), effect, error, error_df, np.zeros(TRUTHS), count)
    return float(np.mean(share_bounds(made, layout, draws=DRAWS, level=level).clear >= 0))


def _truths(found: Attribution, layout: Layout) -> tuple[Floats, Floats]:
    """What error mean squares ``[draw, stratum]`` and noncentralities ``[draw, term]`` may be, given what was found."""
    rows = {row.term: row for row in found.anova}
    chance = np.array([part.variance for part in found.chance])
    seen = expected_squares(np.zeros(len(layout.terms)), chance, layout, found.replicates)
    random = np.random.default_rng(0)
    errors = seen.error / random.chisquare(seen.error_df, (TRUTHS, len(seen.error_df)))
    stratum = np.array([term.stratum for term in layout.terms])
    df = np.array([term.df for term in layout.terms], dtype=float)
    effect = np.array([rows[term.name].ss for term in layout.terms])
    of_terms = errors[:, stratum]
    uniform = random.random((TRUTHS, len(df))).clip(1e-9, 1 - 1e-9)
    return errors, effect_draws(effect, df, of_terms, uniform) / of_terms


def will_be_real(effect: Effect, now: int, count: int, level: float, tests: float) -> float:
    """Return the probability that an effect is called real after so many replicates.

    Parameters
    ----------
    effect
        As it was found.
    now, count
        Replicates behind it, and in all.
    level
        The error that the look after them may use.
    tests
        Among how many tests of equal weight it is.

    Notes
    -----
    Given an estimate d with standard error s, and nothing else known of it, the estimate after K' replicates is normal
    around d with variance s^2 (1 - K / K'), and its standard error is s sqrt(K / K') (the predictive distribution;
    Spiegelhalter, Freedman & Blackburn 1986).
    """
    if effect.se == 0 or count <= now:
        return float(effect.real)
    df = effect.df * (count - 1) / (now - 1)
    needed = stats.t.isf(level / tests / 2, df) * np.sqrt(now / count)
    spread = np.sqrt(1 - now / count)
    found = abs(effect.points) / effect.se
    return float(stats.norm.sf((needed - found) / spread) + stats.norm.cdf((-needed - found) / spread))
