"""Effects in percentage points: differences and means with the error of their own stratum, and their correction.

Everything is paired within replicates: a difference is taken inside each replicate first, so that what a replicate
shares (its held-out cells, its seed) cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from study.attribution.intervals import CONFIDENCE
from study.attribution.layout import Floats, Layout, Squares
from study.attribution.moderation import both_df, contrast_ratios, moderate, ratio_df
from study.config import Level

# A contrast draws on a stratum that holds at least this part of its squared weights.
DRAWN_ON = 0.10
# Measured: without this cap null studies are blamed in up to 6%, with it in at most 5%, at little cost in power.
DF_CAP = 3
Kind = Literal["mean", "marginal", "simple"]


@dataclass(frozen=True)
class Contrast:
    """What is compared: a factor's level with its baseline, overall or at one level of another factor.

    Attributes
    ----------
    kind
        ``mean`` (a level alone), ``marginal`` (level minus baseline, averaged over everything else) or ``simple``
        (the same at one level of another factor).
    at
        Name and level of the other factor; None unless simple.
    """

    kind: Kind
    factor: str
    level: Level
    baseline: Level | None = None
    at: tuple[str, Level] | None = None


@dataclass(frozen=True, eq=False)
class Compared:
    """Estimates of contrasts in points with t intervals and p values, each ``[..., contrast]``."""

    estimate: Floats
    se: Floats
    df: Floats
    lower: Floats
    upper: Floats
    p: Floats

    def __getitem__(self, index: Any) -> Compared:
        """Return the comparisons of some of the tables."""
        return Compared(**{name: array[index] for name, array in vars(self).items()})


def contrasts_of(layout: Layout, baselines: Mapping[str, Level] | None = None) -> tuple[Contrast, ...]:
    """Return the marginal means, the marginal differences and the simple effects of a design, in this order.

    Parameters
    ----------
    layout
        The design.
    baselines
        Baseline level by factor name, where it is not the first level.

    Raises
    ------
    ValueError
        If a baseline is not a level of its factor.
    """
    chosen = dict(baselines or {})
    pairs = []
    for factor in layout.factors:
        baseline = chosen.get(factor.name, factor.levels[0])
        if baseline not in factor.levels:
            raise ValueError(f"Baseline {baseline!r} is no level of {factor.name!r}: {list(factor.levels)}.")
        pairs += [(factor.name, level, baseline) for level in factor.levels if level != baseline]
    means = [Contrast("mean", factor.name, level) for factor in layout.factors for level in factor.levels]
    marginal = [Contrast("marginal", *pair) for pair in pairs]
    simple = [
        Contrast("simple", *pair, at=(other.name, level))
        for pair in pairs
        for other in layout.factors
        if other.name != pair[0]
        for level in other.levels
    ]
    return (*means, *marginal, *simple)


def marginal_effects(layout: Layout) -> int:
    """Return how many marginal differences a design has."""
    return sum(len(factor.levels) - 1 for factor in layout.factors)


def weights_of(contrasts: Sequence[Contrast], layout: Layout) -> Floats:
    """Return the weights of contrasts on the cells, ``[contrast, cell]``."""
    return np.array([_weights(contrast, layout) for contrast in contrasts])


def _weights(contrast: Contrast, layout: Layout) -> Floats:
    """Return a contrast's weights on the cells as the product of one vector per factor."""
    weights = np.ones(1)
    for factor in layout.factors:
        along = np.full(len(factor.levels), 1 / len(factor.levels))
        if factor.name == contrast.factor:
            along = np.eye(len(factor.levels))[factor.levels.index(contrast.level)]
            if contrast.baseline is not None:
                along = along - np.eye(len(factor.levels))[factor.levels.index(contrast.baseline)]
        elif contrast.at is not None and factor.name == contrast.at[0]:
            along = np.eye(len(factor.levels))[factor.levels.index(contrast.at[1])]
        weights = np.kron(weights, along)
    return weights


@dataclass(frozen=True, eq=False)
class Family:
    """The tables of one outcome that are compared together, ``[table, replicate, cell]``.

    Attributes
    ----------
    eta, points, slopes
        Logits, percentages, and points per unit on the logit scale, at each trial.
    squares
        Sums of squares of the logits, ``[table, ...]``.
    proper
        Which tables are classes and not summaries of classes, ``[table]``.
    exact
        Variance of each contrast over that of a balanced table, ``[table, contrast]``: 1 but where trials are missing.
    """

    eta: Floats
    points: Floats
    slopes: Floats
    squares: Squares
    proper: NDArray[np.bool_]
    exact: Floats | float = 1.0

    @property
    def judges(self) -> NDArray[np.intp]:
        """The tables by which ratios are judged: the classes, or all where there is none."""
        return np.flatnonzero(self.proper if self.proper.any() else ~self.proper)


def compare(weights: Floats, family: Family, layout: Layout) -> Compared:
    """Estimate contrasts in points, each with the error of the strata that it draws on and as it varies itself.

    Parameters
    ----------
    weights
        Weights on the cells, ``[contrast, cell]``.
    family
        The tables of one outcome.
    layout
        The design.

    Notes
    -----
    Chance is even on the logit scale and not in points, where 99% moves less than 80%. So the error comes from the
    logits and goes through the slope at each trial (delta method): with g = weights x slope, the variance is the sum
    over strata of |part of g there|^2 MS_E,s / K, with mean squares moderated over the classes, times the ratio by
    which the contrast varies more between replicates than that (`contrast_ratios`). Across strata (a query compared
    at one epoch level) the degrees of freedom are Satterthwaite's, at most three times the fewest of those strata:
    his approximation is too kind far out in the tail, where a correction for many effects looks. Those of the ratio
    count too. Replicates are taken as they are: the claim is about the cells held out here.
    """
    found, judges = family.squares, family.judges
    errors = moderate(found, family.proper)
    variances = stratum_variances(weights, family.slopes, errors.mean_squares, layout)
    variances *= np.asarray(family.exact)[..., None]
    expected = variances.sum(axis=-1)
    ratios = contrast_ratios(
        weights, family.eta[judges], family.points[judges], expected[judges], found[judges], layout
    )
    estimate, most = family.points.mean(axis=-2) @ weights.T, most_df(weights, errors.df, layout)
    others = ratio_df(len(judges), found.replicates)
    return t_tests(estimate, variances * ratios[:, None], errors.df, most, possible(weights), others)


def possible(weights: Floats) -> tuple[Floats, Floats]:
    """Return the least and the greatest that contrasts of percentages can be, each ``[contrast]``."""
    return 100 * np.minimum(weights, 0).sum(axis=-1), 100 * np.maximum(weights, 0).sum(axis=-1)


def most_df(weights: Floats, df: Floats, layout: Layout) -> Floats:
    """Return the most degrees of freedom that a contrast may have, by those of its strata, ``[..., contrast]``."""
    member = (layout.column_stratum[1:, None] == np.arange(len(layout.strata))).astype(float)
    held = (weights @ layout.rotation[:, 1:]) ** 2 @ member
    drawn_on = held >= DRAWN_ON * held.sum(axis=-1, keepdims=True)
    most: Floats = DF_CAP * np.where(drawn_on, df[..., None, :], np.inf).min(axis=-1)
    return most


def stratum_variances(weights: Floats, slopes: Floats, mean_squares: Floats, layout: Layout) -> Floats:
    """Return what each stratum adds to the variance of contrasts in points, ``[..., contrast, stratum]``."""
    # Where slopes differ a contrast draws on the replicate's mean too, which has the root's chance.
    stratum = np.maximum(layout.column_stratum, 0)
    member = (stratum[:, None] == np.arange(len(layout.strata))).astype(float)
    replicates = slopes.shape[-2]
    squared: Floats = np.zeros((*slopes.shape[:-2], len(weights), len(layout.strata)))
    for r in range(replicates):
        squared += ((weights * slopes[..., r, None, :]) @ layout.rotation) ** 2 @ member
    variances: Floats = squared / replicates**2 * mean_squares[..., None, :]
    return variances


def t_tests(
    estimate: Floats,
    variance: Floats,
    df: Floats,
    most: Floats,
    within: tuple[Any, Any] = (-100, 100),
    others: float = np.inf,
) -> Compared:
    """Return t intervals for estimates whose variance is a sum over strata.

    Parameters
    ----------
    estimate
        ``[..., contrast]``.
    variance
        Share of each stratum in the variance, ``[..., contrast, stratum]``.
    df
        Degrees of freedom of each stratum, ``[..., stratum]``.
    most
        The most that a contrast may have, ``[contrast]``.
    within
        The least and the greatest that a contrast can be: no interval goes beyond.
    others
        Degrees of freedom of a factor by which all variances were multiplied.
    """
    total = variance.sum(axis=-1)
    weight = (variance**2 / df[..., None, :]).sum(axis=-1)
    # With no variance at all any degrees of freedom do: the interval has no width.
    own = np.minimum(most, np.divide(total**2, weight, out=np.full_like(total, float(df.max())), where=weight > 0))
    own = both_df(own, others)
    se = np.sqrt(total)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, own) * se
    size = np.divide(np.abs(estimate), se, out=np.where(np.abs(estimate) > 1e-9, np.inf, 0.0), where=se > 0)
    p = np.asarray(2 * stats.t.sf(size, own))
    # Two differences that happen to be equal are no certainty: one degree of freedom tells nothing without an error.
    chance = (se == 0) & (own <= 1) & (np.abs(estimate) > 1e-9)
    p, half = np.where(chance, 1.0, p), np.where(chance, np.inf, half)
    lower, upper = np.clip(estimate - half, *within), np.clip(estimate + half, *within)
    return Compared(estimate, se, own, lower, upper, p)
