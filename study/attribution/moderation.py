"""How large errors really are: what the classes of an outcome know together that each alone does not.

An error of three replicates is known to a third of its value at best, and one error for all effects of a stratum is
too small for an effect that truly differs from replicate to replicate. Classes repeat both questions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from study.attribution.layout import Floats, Layout, Squares


@dataclass(frozen=True, eq=False)
class Moderated:
    """Error mean squares by stratum and their degrees of freedom, ``[..., stratum]``."""

    mean_squares: Floats
    df: Floats


@dataclass(frozen=True, eq=False)
class Ratios:
    """By how much effects vary more between replicates than the errors of their strata say.

    Attributes
    ----------
    of_pieces
        For each group's effects within a stratum, ``[piece]``, at least 1.
    df
        Degrees of freedom, for each of those of a piece.
    """

    of_pieces: Floats
    df: float


def unmoderated(found: Squares) -> Moderated:
    """Return the errors of each table as it gives them alone."""
    return Moderated(found.error_mean_squares, np.broadcast_to(found.error_df, found.error.shape).astype(float))


def moderate(found: Squares, proper: NDArray[np.bool_]) -> Moderated:
    """Draw the error of each class towards what is usual among the classes, as far as they are alike.

    Parameters
    ----------
    found
        Sums of squares ``[table, ...]`` of one outcome.
    proper
        Which tables are classes, ``[table]``; summaries of classes stay as they are.

    Notes
    -----
    Empirical Bayes (Smyth 2004, section 6.2): log mean squares are taken as those of a scaled F distribution, whose
    scale and degrees of freedom d0 are found by moments. With d0 and s0^2 of the prior, the error is
    (d0 s0^2 + d s^2) / (d0 + d), on d0 + d degrees of freedom. d0 is at most what the other classes hold.
    """
    return moderated(unmoderated(found), proper)


def moderated(plain: Moderated, proper: NDArray[np.bool_]) -> Moderated:
    """Do the same with mean squares however they were found; degrees of freedom are those of all tables alike."""
    df = plain.df[0]
    # A class of which nothing varies in a stratum says nothing about the others, and has no logarithm.
    usable = proper & (plain.mean_squares > 0).all(axis=-1)
    if usable.sum() < 2:
        return plain
    logs = np.log(plain.mean_squares[usable]) - special.digamma(df / 2) + np.log(df / 2)
    spread = logs.var(axis=0, ddof=1) - special.polygamma(1, df / 2)
    prior_df = np.minimum(prior_degrees(spread), (usable.sum() - 1) * df)
    prior = np.exp(logs.mean(axis=0) + special.digamma(prior_df / 2) - np.log(prior_df / 2))
    mean_squares, own = plain.mean_squares.copy(), plain.df.copy()
    mean_squares[usable] = (prior_df * prior + df * plain.mean_squares[usable]) / (prior_df + df)
    own[usable] += prior_df
    return Moderated(mean_squares, own)


def prior_degrees(spread: Floats) -> Floats:
    """Return d0 with trigamma(d0 / 2) equal to the spread of true log errors (Newton, Smyth 2004, appendix).

    Infinite where they do not differ more than chance makes them.
    """
    found = np.full_like(spread, np.inf)
    some = spread > 1e-6
    target = spread[some]
    half = 0.5 + 1 / target
    for _ in range(30):
        value = special.polygamma(1, half)
        half += value * (1 - value / target) / special.polygamma(2, half)
    found[some] = 2 * half
    return found


def contrast_ratios(
    weights: Floats, eta: Floats, points: Floats, expected: Floats, found: Squares, layout: Layout
) -> Floats:
    """Return by how much contrasts vary more between replicates than errors of their strata say, ``[contrast]``.

    Parameters
    ----------
    weights
        Weights on the cells, ``[contrast, cell]``.
    eta, points
        Logits and percentages of the classes, ``[class, replicate, cell]``.
    expected
        The variance of the contrast's estimate in points that the errors give, ``[class, contrast]``.
    found
        Sums of squares of these logits, ``[class, ...]``.
    layout
        The design.

    Returns
    -------
    The mean over classes of own over expected variance, in logits or in points, whichever is more, and at least 1.
    In points it also finds what the way from logits to points leaves out, such as a training that collapses.
    """
    within = weights - weights.mean(axis=-1, keepdims=True)  # what replicates share is no error
    member = (layout.column_stratum[1:, None] == np.arange(len(layout.strata))).astype(float)
    pooled = found.error_mean_squares @ ((within @ layout.rotation[:, 1:]) ** 2 @ member).T
    ratios = [_ratio(eta @ within.T, pooled), _ratio(points @ within.T, expected * found.replicates)]
    most: Floats = np.maximum(np.maximum(*ratios), 1.0)
    return most


def _ratio(values: Floats, expected: Floats) -> Floats:
    """Return the mean over classes of the variance between replicates over what is expected, ``[contrast]``."""
    own = values.var(axis=-2, ddof=1)
    ratio: Floats = np.divide(own, expected, out=np.ones_like(own), where=expected > 0).mean(axis=0)
    return ratio


def piece_ratios(eta: Floats, found: Squares, layout: Layout) -> Ratios:
    """Return the same of each piece (a group's effects within a stratum), from the logits of the classes."""
    rotated = eta @ layout.rotation
    within = ((rotated - rotated.mean(axis=-2, keepdims=True)) ** 2).sum(axis=-2)
    ratios = []
    piece = np.array([-1, *(layout.piece_of(t) for t in layout.column_term[1:])])
    for p, (_, stratum) in enumerate(layout.pieces):
        mine = np.flatnonzero(piece == p)
        own = within[..., mine].sum(axis=-1) / (len(mine) * (found.replicates - 1))
        pooled = found.error_mean_squares[..., stratum]
        ratios.append(np.divide(own, pooled, out=np.ones_like(own), where=pooled > 0).mean())
    return Ratios(np.maximum(np.array(ratios), 1.0), ratio_df(len(eta), found.replicates))


def ratio_df(classes: int, replicates: int) -> float:
    """Return the degrees of freedom of the mean ratio of some classes."""
    return float(classes * (replicates - 1))


def both_df(df: Floats, other: Floats | float) -> Floats:
    """Return the degrees of freedom of a product of two estimates: those of its relative variance."""
    return 1 / (1 / df + 1 / np.asarray(other, dtype=float))
