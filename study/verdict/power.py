"""How large an effect must be to be found: what errors a study of some size is expected to have, and its tests."""

from __future__ import annotations

import numpy as np
from scipy import optimize, special, stats

from study.attribution import (
    CONFIDENCE,
    FIRST,
    PART,
    SIGNIFICANT,
    Floats,
    Layout,
    Squares,
    both_df,
    marginal_effects,
    ratio_df,
)
from study.plan import Factor
from study.verdict.words import SUMMARIES

# An effect is found if it is called real in this part of studies.
POWER = 0.8
# How much larger the larger of two mean ratios is, that of logits and that of points: measured on simulated studies.
LARGER_OF_TWO = 1.15


def expected_squares(causes: Floats, chance: Floats, layout: Layout, replicates: int) -> Squares:
    """Return the sums of squares that a study is expected to find.

    Parameters
    ----------
    causes
        Variance of each term, ``[term]``. Negative estimates are kept, but not below 0 for a group in a stratum.
    chance
        Variance that enters at each stratum, ``[stratum]``.
    layout
        The design.
    replicates
        Number of replicates.

    Notes
    -----
    E MS_E,s = the sum over s and deeper strata of n sigma2, and E SS_T = df_T E MS_E,s + C K theta2_T.
    """
    scaled = chance * np.array(layout.sharing)
    errors = np.cumsum(scaled[::-1])[::-1]
    stratum = np.array([term.stratum for term in layout.terms])
    df = np.array([term.df for term in layout.terms], dtype=float)
    error_df = layout.stratum_df * (replicates - 1)
    effect = np.maximum(df * errors[stratum] + layout.cells * replicates * causes, 0.0)
    return Squares(np.zeros(layout.cells), effect, errors * error_df, error_df, np.zeros(()), replicates)


def stratum_of(factor: Factor, layout: Layout) -> int:
    """Return the number of the stratum in which a factor acts."""
    return next(s for s, stratum in enumerate(layout.strata) if factor.name in stratum.factors)


def sharpness(
    factor: Factor, chance: Floats, layout: Layout, replicates: int, percent: float, classes: int
) -> tuple[float, float]:
    """Return the half-width and the least effect found, in points, for a difference between two levels of a factor.

    Parameters
    ----------
    factor
        The factor.
    chance
        Variance that enters at each stratum, ``[stratum]``, on the logit scale.
    layout
        The design.
    replicates
        Number of replicates.
    percent
        Typical value of the outcome, which turns the logit scale into points.
    classes
        Number of classes.
    """
    stratum = stratum_of(factor, layout)
    found = expected_squares(np.zeros(len(layout.terms)), chance, layout, replicates)
    variance = 2 * len(factor.levels) / (layout.cells * replicates) * found.error_mean_squares[stratum]
    own_df = ratio_df(classes, replicates)
    # Classes alike in their chance know it together; the mean ratio of classes is a gamma around 1, taken if above 1.
    df = float(both_df(np.asarray(found.error_df[stratum] * float(classes)), own_df))
    ratio = special.gammainc(own_df / 2, own_df / 2) + special.gammaincc(own_df / 2 + 1, own_df / 2)
    error = np.sqrt(variance * ratio * LARGER_OF_TWO) * percent * (100 - percent) / 100
    least = _least_found(PART * SIGNIFICANT / family_size(layout, classes), df)
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, df) * error), float(least * error)


def family_size(layout: Layout, classes: int) -> float:
    """Return among how many tests of equal weight a marginal effect of the first outcome is."""
    return marginal_effects(layout) * (classes + len(SUMMARIES)) * 2 / FIRST


def _least_found(level: float, df: float) -> float:
    """Return how many standard errors an effect must be to pass a two-sided t test at a level with `POWER`."""
    critical = stats.t.isf(level / 2, df)

    def missed(effect: float) -> float:
        # Far out the distribution function is not computed, and is 0.
        return float(np.nan_to_num(stats.nct.cdf(critical, df, effect))) - (1 - POWER)

    return float(optimize.brentq(missed, 0.0, 10 * critical + 10))
