"""Random designs: settings drawn from ranges, the same points in every replicate, and no crossed table.

A mixed model on the logit scale: numbers enter on the scale they were drawn on; runs that share a training, and points
that recur in every replicate, are random terms. What recurs at a point but has no simple form is a group of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import special, stats
from statsmodels.regression.linear_model import GLS

from study.attribution.correction import SIGNIFICANT
from study.attribution.effects import t_tests
from study.attribution.findings import Attribution, ChancePart, Effect, Share
from study.attribution.intervals import CONFIDENCE, DRAWS, GATE, SEED, clear_winners, noncentrality
from study.attribution.layout import CAUSES, CHANCE, MIXED, Floats
from study.attribution.mixed import reml
from study.attribution.points import Trials, arrange_trials
from study.attribution.tables import MIN_SUPPORT, percent, slope
from study.config import Level, written
from study.plan import Factor, Stratum

# What differs between points in every replicate and follows no main effect and no data x parameter product.
OTHER = "other repeatable"
# A number's effect is the difference between these quantiles of what was drawn.
LOW, HIGH = 0.1, 0.9


def attribute_random(
    outcome: str,
    name: str,
    table: pd.DataFrame,
    factors: Sequence[Factor],
    strata: Sequence[Stratum],
    level: float = SIGNIFICANT,
) -> Attribution:
    """Attribute the differences in one outcome of one class of a random design; p values are not yet adjusted.

    Parameters
    ----------
    outcome, name
        Outcome and class.
    table
        One row per trial, as for `study.attribution.attribute_study`.
    factors, strata
        The design; a factor drawn from a range has no levels.
    level
        What this look may use of the 5%.

    Notes
    -----
    eta = block + main effects + data x parameter products + point + runs by stratum + rest, by REML. A group g with
    coefficients b over the points has theta2 = b'Sb - tr(S Cov b). Its interval draws the noncentrality that its Wald
    statistic supports; degrees of freedom are those of the points or of the group's runs, whichever are fewer.
    """
    present = table[table["correct"].notna()]
    correct, total = present["correct"].to_numpy(float), present["total"].to_numpy(float)
    points = percent(correct, total)
    shown = Attribution(
        outcome,
        name,
        "none",
        "",
        float(np.nanmean(points)) if len(points) and np.isfinite(points).any() else float("nan"),
        float(total.mean()) if len(total) else 0.0,
        len(present),
        int(table["replicate"].nunique()),
    )
    reason = _reason_not_to(table, present, points, factors)
    if reason:
        return replace(shown, reason=reason)
    trials = arrange_trials(present, factors, strata)
    try:
        return _fitted(shown, trials, present, factors, strata, level)
    except ValueError as error:
        return replace(shown, reason=str(error))


def _reason_not_to(table: pd.DataFrame, present: pd.DataFrame, points: Floats, factors: Sequence[Factor]) -> str:
    """Return why a class is shown but not decomposed; empty if it can be."""
    names = [factor.name for factor in factors]
    drawn, kept = (len(frame[names].drop_duplicates()) for frame in (table, present))
    if table["replicate"].nunique() < 2:
        return "one replicate only: chance cannot be told from causes; at least 2 are needed, 3 are better"
    if not len(present):
        return "no trial has a result"
    if np.isnan(points).any():
        return (
            f"undefined in {int(np.isnan(points).sum())} of {len(points)} trials: no cell was called this class there"
        )
    if present["total"].mean() < MIN_SUPPORT:
        return f"too few cells: {present['total'].mean():.0f} on average, {MIN_SUPPORT} are needed"
    if points.max() == points.min():
        return f"nothing varies: {points.max():.4g}% in every trial"
    for factor in factors:
        if never := _never_drawn(factor, present[factor.name]):
            return never
    if kept < drawn:
        return f"not missing at random: {drawn - kept} of {drawn} design points have no result in any replicate"
    return ""


def _never_drawn(factor: Factor, values: pd.Series) -> str:
    """Say which level no trial with a result has, or that a number is the same in all; empty if neither."""
    seen = set(values.astype(str))
    missing = [written(level) for level in factor.levels if str(level) not in seen]
    if missing:
        return (
            f"{factor.name} = {missing[0]} was never drawn, or has no result; more points (space.points) would have it"
        )
    return "" if len(seen) > 1 else f"{factor.name} came out as {values.iloc[0]} in every point"


def _fitted(
    shown: Attribution,
    trials: Trials,
    present: pd.DataFrame,
    factors: Sequence[Factor],
    strata: Sequence[Stratum],
    level: float,
) -> Attribution:
    """Fit the mixed model and put its numbers into values."""
    blocks = (trials.replicate[:, None] == np.unique(trials.replicate)).astype(float)
    exog = np.column_stack([blocks, trials.columns])
    n_points = len(np.unique(trials.point))
    point_df = n_points - 1 - trials.columns.shape[1]
    if point_df < 3 or np.linalg.matrix_rank(exog) < exog.shape[1]:
        raise ValueError(
            f"too few points: {n_points} for {trials.columns.shape[1]} effects, at least 4 more are needed"
        )
    units = [trials.point, *trials.runs.values()]
    variances = reml(trials.eta, exog, units)
    every = [*units, np.arange(len(exog))]
    same = sum(v * (unit[:, None] == unit) for v, unit in zip(variances, every, strict=True))
    found = GLS(trials.eta, exog, sigma=same).fit()
    fixed = np.asarray(found.params)[blocks.shape[1] :]
    covariance = np.asarray(found.normalized_cov_params)[blocks.shape[1] :, blocks.shape[1] :]
    df = {group: _group_df(group, trials, factors, strata, point_df) for group in CAUSES}
    shares, chance, clear = _shares(trials, fixed, covariance, variances, df, strata, level)
    reason = f"random design of {n_points} points: a mixed model of main effects and their products, approximate"
    effects = _effects(trials, present, fixed, covariance, df, factors)
    return replace(
        shown, method="mixed model", reason=reason, clear=clear, shares=shares, chance=chance, effects=effects
    )


def _group_df(group: str, trials: Trials, factors: Sequence[Factor], strata: Sequence[Stratum], point_df: int) -> int:
    """Return error degrees of freedom of a group: of the points, or of the runs its factors act on if fewer."""
    mine = {factor.name for factor in factors if group in (factor.role, MIXED)}
    df = point_df
    for stratum in strata:
        if stratum.name in trials.runs and mine & set(stratum.factors):
            units = len(np.unique(trials.runs[stratum.name])) - len(np.unique(trials.replicate))
            df = min(df, units - int((trials.group == group).sum()))
            break
    return max(df, 1)


def _shares(
    trials: Trials,
    fixed: Floats,
    covariance: Floats,
    variances: Floats,
    df: dict[str, int],
    strata: Sequence[Stratum],
    level: float,
) -> tuple[tuple[Share, ...], tuple[ChancePart, ...], str | None]:
    """Return shares with intervals, drawn as for balanced tables, and the group that is clear of all others."""
    present = [group for group in CAUSES if (trials.group == group).any()]
    rng = np.random.default_rng(SEED)
    estimate, drawn, p = [], [], []
    for group in present:
        mine = trials.group == group
        spread, own = np.atleast_2d(np.cov(trials.columns[:, mine].T, bias=True)), covariance[np.ix_(mine, mine)]
        k, noise = int(mine.sum()), float(np.trace(spread @ own))
        wald = float(fixed[mine] @ np.linalg.solve(own, fixed[mine]))
        estimate.append(max(float(fixed[mine] @ spread @ fixed[mine]) - noise, 0.0))
        ratio = rng.chisquare(df[group], DRAWS) / df[group]
        supported = noncentrality(wald * ratio, np.full(DRAWS, float(k)), rng.uniform(1e-9, 1, DRAWS))
        drawn.append(supported * noise / k / ratio)
        p.append(float(stats.f.sf(wald / k, k, df[group])))
    replicates, n_points = len(np.unique(trials.replicate)), len(np.unique(trials.point))
    rest_df = (replicates - 1) * (n_points - 1)
    run_df = [len(np.unique(unit)) - replicates for unit in trials.runs.values()]
    chance_df = [*run_df, rest_df]
    chance = np.array([v * n / rng.chisquare(n, DRAWS) for v, n in zip(variances[1:], chance_df, strict=True)])
    point_df = n_points - 1 - trials.columns.shape[1]
    between = (replicates * variances[0] + variances[1:].sum()) * point_df / rng.chisquare(point_df, DRAWS)
    estimate.append(float(variances[0]))
    drawn.append(np.maximum(between - chance.sum(axis=0), 0.0) / replicates)

    whole = sum(estimate) + float(variances[1:].sum())
    total = np.sum(drawn, axis=0) + chance.sum(axis=0)
    parts = np.array([*drawn, chance.sum(axis=0), *chance]) / total
    lower, upper = np.quantile(parts, [GATE, CONFIDENCE + GATE], axis=1)
    shares = [
        Share(g, estimate[i] / whole, float(lower[i]) if p[i] <= GATE else 0.0, float(upper[i]), p[i], p[i])
        for i, g in enumerate(present)
    ]
    n = len(present)
    for i, (group, value) in enumerate(((OTHER, estimate[-1]), (CHANCE, float(variances[1:].sum()))), start=n):
        shares.append(Share(group, value / whole, float(lower[i]), float(upper[i]), None, None))
    ends = np.quantile(parts[: len(shares)], [level / 2, 1 - level / 2], axis=1)
    ends[0, :n] *= np.array(p) <= level / 2
    top = int(clear_winners(*ends))
    of_strata = zip(variances[1:] / whole, lower[n + 2 :], upper[n + 2 :], variances[1:], chance_df, strict=True)
    return tuple(shares), _split(trials, of_strata, strata), None if top < 0 else shares[top].group


def _split(
    trials: Trials, found: Iterable[tuple[float, float, float, float, int]], strata: Sequence[Stratum]
) -> tuple[ChancePart, ...]:
    """Return chance by stratum from the share, its interval, the variance and the degrees of freedom of each."""
    labels = {stratum.name: stratum.label for stratum in strata}
    names = [*trials.runs, strata[-1].name if strata[-1].name not in trials.runs else "training"]
    return tuple(
        ChancePart(name, labels.get(name, "training again"), float(share), float(low), float(high), float(v), df, "")
        for name, (share, low, high, v, df) in zip(names, found, strict=True)
    )


def _effects(
    trials: Trials,
    present: pd.DataFrame,
    fixed: Floats,
    covariance: Floats,
    df: dict[str, int],
    factors: Sequence[Factor],
) -> tuple[Effect, ...]:
    """Return each level's difference from the first, and each number's from low to high, in points, largest first."""
    found = []
    for factor in factors:
        own_df = np.array([df[factor.role]])
        for level, baseline, *places in _pairs(factor, present[factor.name]):
            estimate, gradient = _difference(trials, fixed, factor.name, *places)
            variance = gradient @ covariance @ gradient
            tested = t_tests(np.array([estimate]), np.array([[variance]]), own_df, own_df.astype(float))
            numbers = (tested.estimate, tested.lower, tested.upper, tested.se, tested.df, tested.p, tested.p)
            place = (None, None, factor.role, "runs and points")
            found.append(Effect("marginal", factor.name, level, baseline, *place, *(float(one[0]) for one in numbers)))
    return tuple(sorted(found, key=lambda effect: -abs(effect.points)))


def _pairs(factor: Factor, values: pd.Series) -> list[tuple[Level, Level, int, int]]:
    """Return which levels are compared, a level and its baseline, and a trial that has each."""
    if factor.levels:
        texts = values.astype(str).tolist()
        first = {level: texts.index(str(level)) for level in factor.levels}
        baseline = factor.levels[0]
        return [(level, baseline, first[level], first[baseline]) for level in factor.levels[1:]]
    numbers = values.astype(float).tolist()
    low, high = (float(np.quantile(numbers, q, method="nearest")) for q in (LOW, HIGH))
    return [(high, low, numbers.index(high), numbers.index(low))]


def _difference(trials: Trials, fixed: Floats, factor: str, there: int, start: int) -> tuple[float, Floats]:
    """Return what a factor does, in points, and its gradient by the coefficients.

    It is the mean over all trials of the share that the model gives with the factor as it is in one trial, less that
    with the factor as it is in another, all else as it was: products with other factors, and the scale, are averaged.
    """
    rest = trials.eta - trials.columns @ fixed
    estimate, gradient = 0.0, np.zeros(len(fixed))
    for sign, trial in ((1, there), (-1, start)):
        columns = trials.columns_with(factor, trial)
        share = special.expit(rest + columns @ fixed)
        estimate += sign * 100 * float(share.mean())
        gradient += sign * (slope(share)[:, None] * (columns - trials.columns)).mean(axis=0)
    return estimate, gradient
