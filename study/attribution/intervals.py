"""Shares of the variance with generalized confidence intervals, for one or many balanced tables at once.

An interval comes from draws of what each mean square could have been (Weerahandi 1993): the error of each stratum
through a chi-square, the effects of each group through the noncentrality that their sum of squares supports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from scipy.stats import qmc

from study.attribution.layout import CAUSES, Floats, Layout, Squares, chance_variances, f_test
from study.attribution.moderation import Ratios, both_df

# Of every interval.
CONFIDENCE = 0.95
# A scrambled Sobol sequence: as precise at the 2.5% tails as several thousand independent draws.
DRAWS = 1024
SEED = 20240
# A group keeps 0 in its interval unless its effects, tested together, are supported at this level.
GATE = (1 - CONFIDENCE) / 2


@dataclass(frozen=True, eq=False)
class ShareBounds:
    """Shares of the variance and their intervals, arrays with the leading axes of the tables.

    Attributes
    ----------
    estimate, lower, upper
        Shares of data, parameter, data x parameter and chance, ``[..., 4]``. NaN where nothing varies.
    stratum_estimate, stratum_lower, stratum_upper
        The chance's share split by stratum, ``[..., stratum]``.
    p
        Omnibus p value of each group of causes, ``[..., 3]``; 1 for a group that the design lacks.
    clear
        Which share is the largest beyond the error that was allowed, ``[...]``; -1 where none is.
    """

    estimate: Floats
    lower: Floats
    upper: Floats
    stratum_estimate: Floats
    stratum_lower: Floats
    stratum_upper: Floats
    p: Floats
    clear: NDArray[np.intp]

    def __getitem__(self, index: Any) -> ShareBounds:
        """Return the shares of some of the tables."""
        return ShareBounds(**{name: array[index] for name, array in vars(self).items()})


def share_bounds(
    found: Squares,
    layout: Layout,
    ratios: Ratios | None = None,
    draws: int = DRAWS,
    seed: int = SEED,
    level: float = 1 - CONFIDENCE,
) -> ShareBounds:
    """Return shares of data, parameter, data x parameter and chance with generalized confidence intervals.

    Parameters
    ----------
    found
        Sums of squares of one or many tables.
    layout
        The design.
    ratios
        By how much the effects of each piece vary more between replicates than their stratum's error; 1 if None.
    draws
        Number of draws, a power of 2.
    seed
        Seed of the draws.
    level
        How often a share may be called the largest that is not, which is judged by intervals that miss as often.

    Notes
    -----
    For each stratum m* = SSE / chi2(df_E). For each piece (a group within a stratum) with pooled SS and df, m* times
    its ratio, and U uniform: lambda* = 0 if U <= P(chi2_df > SS / m*), else the noncentrality with
    P(chi2_df(lambda*) <= SS / m*) = 1 - U; then theta2* = lambda* m* / (C K). A group that no omnibus test supports
    may be absent: its own interval keeps 0, and the upper ends of the others are those without it (so that chance
    keeps 1 if nothing is supported). Sources: docs/method.md.
    """
    ratios = ratios or Ratios(np.ones(len(layout.pieces)), np.inf)
    effect, df = piece_squares(found, layout)
    p = group_p_values(effect, df, found, layout, ratios)
    mean_squares = found.error_mean_squares
    stratum = np.array([piece[1] for piece in layout.pieces])
    scale = layout.cells * found.replicates

    causes = _by_group(effect - df * mean_squares[..., stratum] * ratios.of_pieces, layout).clip(0.0) / scale
    parts, whole = _parts(causes, chance_variances(mean_squares, layout.sharing))
    estimate = parts / np.where(whole > 0, whole, np.nan)

    uniform = qmc.Sobol(len(layout.strata) + len(df), rng=np.random.default_rng(seed)).random(draws)
    parts, whole = _drawn_parts(found, layout, ratios, uniform.clip(1e-9, 1 - 1e-9))

    lower, upper = _ends(parts, whole, p, layout, CONFIDENCE)
    n = len(CAUSES) + 1
    beyond = (lower, upper) if level == 1 - CONFIDENCE else _ends(parts, whole, p, layout, 1 - level)
    clear = clear_winners(beyond[0][..., :n], beyond[1][..., :n])
    return ShareBounds(
        estimate[..., :n], lower[..., :n], upper[..., :n], estimate[..., n:], lower[..., n:], upper[..., n:], p, clear
    )


def _ends(parts: Floats, whole: Floats, p: Floats, layout: Layout, confidence: float) -> tuple[Floats, Floats]:
    """Return the ends of the intervals of shares from their draws, ``[..., 4 + stratum]``."""
    tail = (1 - confidence) / 2
    # Looked at alone, a group is supported at one tail; to stand in the way of the others, among all groups at two.
    supported = np.ones((*p.shape[:-1], parts.shape[-1]), dtype=bool)
    supported[..., : len(CAUSES)] = p * len(layout.groups) <= 2 * tail
    doubtful = np.where(supported[..., None, :], 0.0, parts)
    least = whole - doubtful.sum(axis=-1, keepdims=True) + doubtful
    supported[..., : len(CAUSES)] = p <= tail
    lower = np.where(supported, np.quantile(parts / whole, tail, axis=-2), 0.0)
    return lower, np.quantile(parts / least, 1 - tail, axis=-2)


def _drawn_parts(found: Squares, layout: Layout, ratios: Ratios, uniform: Floats) -> tuple[Floats, Floats]:
    """Return draws of what the variances may be, ``[..., draw, 4 + stratum]``, and their whole (NaN where none)."""
    effect, df = piece_squares(found, layout)
    stratum = np.array([piece[1] for piece in layout.pieces])
    errors = found.error[..., None, :] / special.chdtri(found.error_df, uniform[:, : len(layout.strata)])
    effects = effect_draws(
        effect[..., None, :], df, errors[..., stratum] * ratios.of_pieces, uniform[:, len(layout.strata) :]
    )
    causes = _by_group(effects, layout) / (layout.cells * found.replicates)
    parts, whole = _parts(causes, chance_variances(errors, layout.sharing))
    return parts, np.where(whole > 0, whole, np.nan)


def piece_squares(found: Squares, layout: Layout) -> tuple[Floats, Floats]:
    """Return the sum of squares ``[..., piece]`` and the degrees of freedom ``[piece]`` of each piece."""
    member = np.array([[(t.group, t.stratum) == piece for piece in layout.pieces] for t in layout.terms], dtype=float)
    return found.effect @ member, np.array([term.df for term in layout.terms], dtype=float) @ member


def group_p_values(effect: Floats, df: Floats, found: Squares, layout: Layout, ratios: Ratios | None = None) -> Floats:
    """Return each group's omnibus p value ``[..., 3]``: the F tests of its pieces, combined by Fisher's method.

    Pieces of a group lie in different strata, so that their tests are independent.
    """
    stratum = np.array([piece[1] for piece in layout.pieces])
    error, error_df = found.error_mean_squares[..., stratum], found.error_df[stratum].astype(float)
    if ratios is not None:
        error, error_df = error * ratios.of_pieces, both_df(error_df, df * ratios.df)
    p = f_test(effect, df, error * error_df, error_df)
    combined = np.ones((*p.shape[:-1], len(CAUSES)))
    for g, group in enumerate(CAUSES):
        mine = [i for i, piece in enumerate(layout.pieces) if piece[0] == group]
        if mine:
            with np.errstate(divide="ignore"):  # a p value of 0 stays 0
                combined[..., g] = stats.combine_pvalues(p[..., mine], axis=-1).pvalue
    return combined


def _by_group(pieces: Floats, layout: Layout) -> Floats:
    """Sum pieces to the three groups of causes, ``[..., 3]``."""
    member = np.array([[piece[0] == group for group in CAUSES] for piece in layout.pieces], dtype=float)
    summed: Floats = pieces @ member
    return summed


def _parts(causes: Floats, chance: Floats) -> tuple[Floats, Floats]:
    """Return the variances of causes, all chance, and chance by stratum ``[..., 4 + stratum]``, and their whole."""
    total = chance.sum(axis=-1, keepdims=True)
    return np.concatenate([causes, total, chance], axis=-1), causes.sum(axis=-1, keepdims=True) + total


def effect_draws(effect: Floats, df: Floats, error: Floats, uniform: Floats) -> Floats:
    """Return draws of lambda* m* (the sum of squares that is effect, not error)."""
    effect, df, error, uniform = np.broadcast_arrays(effect, df, error, uniform)
    drawn = effect.copy()  # with no error at all, all of it is effect
    noisy = error > 0
    with np.errstate(over="ignore"):
        ratio = effect[noisy] / error[noisy]
    drawn[noisy] = np.minimum(noncentrality(ratio, df[noisy], uniform[noisy]) * error[noisy], np.inf)
    return drawn


def noncentrality(ratio: Floats, df: Floats, uniform: Floats) -> Floats:
    """Return lambda with P(chi2_df(lambda) <= ratio) = 1 - uniform, or 0 where no lambda gives that.

    Drawn with `uniform` uniform, it is what a sum of squares says about the effects behind it; all ``[...]``.
    """
    found = np.zeros_like(ratio)
    above = uniform > special.chdtrc(df, ratio)
    far = above & (ratio > 200 + 10 * df)
    near = above & ~far
    found[near] = special.chndtrinc(ratio[near], df[near], 1 - uniform[near])
    # Far out the exact search is slow and this is right to 4 digits (Sankaran 1959).
    half = (df[far] - 1) / 2
    found[far] = (special.ndtri(uniform[far]) + np.sqrt(ratio[far] - half)) ** 2 - half
    return found


def clear_winners(lower: Floats, upper: Floats) -> NDArray[np.intp]:
    """Return which share's interval lies above all others, ``[...]``; -1 where none does.

    Parameters
    ----------
    lower, upper
        Intervals of the shares, ``[..., share]``.
    """
    top = np.argmax(lower, axis=-1)
    at = np.arange(lower.shape[-1]) == top[..., None]
    others = np.where(at, 0.0, upper).max(axis=-1)
    found: NDArray[np.intp] = np.where(np.take_along_axis(lower, top[..., None], -1)[..., 0] > others, top, -1)
    return found
