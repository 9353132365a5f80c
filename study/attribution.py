"""From the table of trials to what explains its differences: shares, chance by stratum, effects in points.

Each class and outcome is one table (a value per trial). Chance has the strata of the stage tree; what replicates
differ in (held-out cells, seed) stands apart. The method and its sources: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import special

from study.anova import (
    CAUSES,
    CHANCE,
    Floats,
    Layout,
    Squares,
    block_variances,
    chance_variances,
    effect_variances,
    f_test,
    layout_of,
    squares,
)
from study.config import Level
from study.design import Factor
from study.effects import Compared, Contrast, adjust_effects, compare, contrasts_of, holm, weights_of
from study.fallback import compare_unbalanced, fit_unbalanced
from study.findings import (
    AnovaRow,
    Attribution,
    Block,
    ChancePart,
    Effect,
    Mean,
    Method,
    Sensitivity,
    Share,
    StudyAttribution,
)
from study.intervals import ShareBounds, share_bounds
from study.plan import Stratum
from study.tables import ClassTable, class_table, reason_not_to, slope

# A stratum whose error has fewer degrees of freedom says so: an interval then reaches 2.6 standard errors and more,
# and the standard error itself is known to a third of its value at best.
FEW_DF = 6


@dataclass(frozen=True, eq=False)
class _Fit:
    """One decomposed table, before correction over the whole study."""

    squares: Squares
    bounds: ShareBounds
    compared: Compared
    method: Method
    reason: str


def attribute_study(
    table: pd.DataFrame,
    factors: Sequence[Factor],
    strata: Sequence[Stratum],
    baselines: Mapping[str, Level] | None = None,
) -> StudyAttribution:
    """Attribute the differences in every outcome of every class of a study.

    Parameters
    ----------
    table
        One row per trial, outcome and class: `outcome` (such as ``heldout/recall``), `class_name`, a column per
        factor, `replicate`, `seed`, `fold`, `correct`, `total`. For macro recall `correct` is the mean recall times
        `total`. A failed trial has NaN in `correct`, or no row.
    factors
        The factors of the crossed design.
    strata
        The levels of the stage tree from the root, each with the factors that act there.
    baselines
        Baseline level by factor name, where it is not the first level.

    Returns
    -------
    One `Attribution` per outcome and class, in order of appearance. Within each outcome, p values of effects are
    adjusted by Holm over all effects of all classes, marginal and simple ones with half of the error each, and those
    of groups over all groups of all classes.

    Raises
    ------
    ValueError
        If the table and the design do not fit each other.
    """
    layout = layout_of(factors, strata)
    tables = {
        (str(outcome), str(name)): class_table(rows, layout)
        for (outcome, name), rows in table.groupby(["outcome", "class_name"], sort=False)
    }
    return StudyAttribution(layout.factors, layout.strata, attribute_tables(tables, layout, baselines))


def attribute_tables(
    tables: Mapping[tuple[str, str], ClassTable], layout: Layout, baselines: Mapping[str, Level] | None = None
) -> tuple[Attribution, ...]:
    """Attribute tables that are already arranged, by outcome and class name: the inside of `attribute_study`."""
    contrasts = contrasts_of(layout, baselines)
    weights = weights_of(contrasts, layout)
    ready = [reason_not_to(table, layout) for table in tables.values()]
    fits, reasons = _fit_all(list(tables.values()), ready, layout, weights)
    return _findings(tables, fits, reasons, contrasts, layout)


def attribute(
    table: pd.DataFrame,
    factors: Sequence[Factor],
    strata: Sequence[Stratum],
    baselines: Mapping[str, Level] | None = None,
) -> Attribution:
    """Attribute the differences in one outcome of one class; the table needs no `outcome` and no `class_name`.

    See `attribute_study`, which corrects over everything that a study says and is what a report should use.
    """
    named = table.assign(outcome=table.get("outcome", ""), class_name=table.get("class_name", ""))
    found = attribute_study(named, factors, strata, baselines).attributions
    if len(found) != 1:
        raise ValueError(f"The table holds {len(found)} outcomes and classes; `attribute_study` takes many.")
    return found[0]


def _fit_all(
    tables: list[ClassTable], reasons: list[str], layout: Layout, weights: Floats
) -> tuple[list[_Fit | None], list[str]]:
    """Fit what can be fitted: complete tables together, those with missing trials one by one."""
    fits: list[_Fit | None] = [None] * len(tables)
    reasons = list(reasons)
    whole: dict[int, list[int]] = {}
    for i, table in enumerate(tables):
        if not reasons[i] and table.present.all():
            whole.setdefault(len(table.correct), []).append(i)
        elif not reasons[i]:
            try:
                fits[i] = _fit_missing(table, layout, weights)
            except ValueError as error:
                reasons[i] = str(error)
    for members in whole.values():
        found = squares(np.stack([tables[i].eta for i in members]), layout)
        bounds = share_bounds(found, layout)
        points = np.stack([tables[i].points for i in members])
        slopes = np.stack([tables[i].slopes for i in members])
        compared = compare(weights, points, slopes, found, layout)
        for at, i in enumerate(members):
            fits[i] = _Fit(found[at], bounds[at], compared[at], "balanced", "")
    return fits, reasons


def _fit_missing(table: ClassTable, layout: Layout, weights: Floats) -> _Fit:
    """Fit a table with missing trials by the mixed model."""
    fit = fit_unbalanced(table.eta, layout)
    fitted = special.expit(fit.fitted)
    points = np.where(table.present, table.points, 100 * fitted)
    slopes = np.where(table.present, table.slopes, slope(fitted))
    reason = f"{int((~table.present).sum())} of {table.present.size} trials are missing: a mixed model, approximate"
    bounds = share_bounds(fit.squares, layout)
    return _Fit(fit.squares, bounds, compare_unbalanced(weights, points, slopes, fit, layout), "mixed model", reason)


def _findings(
    tables: Mapping[tuple[str, str], ClassTable],
    fits: Sequence[_Fit | None],
    reasons: Sequence[str],
    contrasts: Sequence[Contrast],
    layout: Layout,
) -> tuple[Attribution, ...]:
    """Correct over the study, and put the numbers into words and values."""
    adjusted = _adjusted([outcome for outcome, _ in tables], fits, contrasts, layout)
    named_strata = _strata_of(contrasts, layout)
    found = []
    for i, ((outcome, name), table) in enumerate(tables.items()):
        fit, reason = fits[i], reasons[i]
        points = table.points
        shown = Attribution(
            outcome,
            name,
            "none",
            reason,
            float(np.nanmean(points)) if np.isfinite(points).any() else float("nan"),
            table.support,
            int(table.present.sum()),
            len(table.correct),
        )
        if fit:
            p_groups, p_effects = adjusted[i]
            shown = replace(
                shown,
                method=fit.method,
                reason=fit.reason,
                shares=_shares(fit.bounds, p_groups, layout),
                chance=_chance(fit, layout),
                block=_block(fit, table, layout),
                means=_means(fit.compared, contrasts),
                effects=_effects(fit.compared, p_effects, contrasts, named_strata, layout),
                anova=_anova(fit.squares, layout),
                sensitivity=_sensitivity(fit.squares, layout),
            )
        found.append(shown)
    return tuple(found)


def _adjusted(
    outcomes: Sequence[str], fits: Sequence[_Fit | None], contrasts: Sequence[Contrast], layout: Layout
) -> dict[int, tuple[Floats, Floats]]:
    """Return, by table, the p values of groups ``[3]`` and effects ``[contrast]``, corrected within each outcome."""
    had = np.array([group in layout.groups for group in CAUSES])
    found: dict[int, tuple[Floats, Floats]] = {}
    for outcome in set(outcomes):
        mine = {i: fit for i, fit in enumerate(fits) if fit and outcomes[i] == outcome}
        if mine:
            groups = np.stack([fit.bounds.p for fit in mine.values()])
            groups[:, had] = holm(groups[:, had])
            effects = adjust_effects(np.stack([fit.compared.p for fit in mine.values()]), contrasts)
            found.update(zip(mine, zip(groups, effects, strict=True), strict=True))
    return found


def _shares(bounds: ShareBounds, p_adjusted: Floats, layout: Layout) -> tuple[Share, ...]:
    """Return the shares of the groups that the design has, and of chance."""
    found = []
    for g, group in enumerate((*CAUSES, CHANCE)):
        interval = (float(bounds.estimate[g]), float(bounds.lower[g]), float(bounds.upper[g]))
        if group == CHANCE:
            found.append(Share(group, *interval, None, None))
        elif group in layout.groups:
            found.append(Share(group, *interval, float(bounds.p[g]), float(p_adjusted[g])))
    return tuple(found)


def _chance(fit: _Fit, layout: Layout) -> tuple[ChancePart, ...]:
    """Return chance split by stratum, with a warning where its degrees of freedom are few."""
    variances = chance_variances(fit.squares.error_mean_squares, layout.sharing)
    found = []
    for s, stratum in enumerate(layout.strata):
        df, bounds = int(fit.squares.error_df[s]), fit.bounds
        share, lower, upper = (
            float(bound[s]) for bound in (bounds.stratum_estimate, bounds.stratum_lower, bounds.stratum_upper)
        )
        note = few_df_note(layout, s, fit.squares.replicates, df)
        found.append(ChancePart(stratum.name, stratum.label, share, lower, upper, float(variances[s]), df, note))
    return tuple(found)


def few_df_note(layout: Layout, stratum: int, replicates: int, df: int) -> str:
    """Return a warning for a stratum with few degrees of freedom, such as "3 query x 3 replicates: 4 degrees ..."."""
    if df >= FEW_DF:
        return ""
    names = {name for above in layout.strata[: stratum + 1] for name in above.factors}
    sizes = [f"{len(factor.levels)} {factor.name}" for factor in layout.factors if factor.name in names]
    return (
        f"{' x '.join(sizes)} x {replicates} replicates: {df} degrees of freedom, too few for more than a rough "
        "statement; more replicates help"
    )


def _block(fit: _Fit, table: ClassTable, layout: Layout) -> Block:
    """Return what replicates differ in, split where seeds and folds are crossed."""
    means = np.nanmean(table.eta, axis=1)
    if fit.method == "mixed model":
        # Replicates that miss different trials are compared by their adjusted means: only the total is known then.
        error = float(fit.squares.error_mean_squares[0])
        total = float(fit.squares.block / (fit.squares.replicates - 1) - error) / layout.cells
        parts = {"block": total}
    else:
        parts = block_variances(means, float(fit.squares.error_mean_squares[0]), table.seeds, table.folds, layout)
    chance = float(chance_variances(fit.squares.error_mean_squares, layout.sharing).sum())
    whole = chance / float(fit.bounds.estimate[-1]) if fit.bounds.estimate[-1] > 0 else np.inf
    return Block(
        variance=parts["block"],
        relative=parts["block"] / whole,
        df=fit.squares.replicates - 1,
        seed=parts.get("seed"),
        fold=parts.get("fold"),
        both=parts.get("both"),
    )


def _means(compared: Compared, contrasts: Sequence[Contrast]) -> tuple[Mean, ...]:
    """Return the marginal means, their intervals cut to what a percentage can be."""
    return tuple(
        Mean(
            contrast.factor,
            contrast.level,
            float(compared.estimate[c]),
            float(max(compared.lower[c], 0.0)),
            float(min(compared.upper[c], 100.0)),
        )
        for c, contrast in enumerate(contrasts)
        if contrast.kind == "mean"
    )


def _strata_of(contrasts: Sequence[Contrast], layout: Layout) -> list[str]:
    """Return the strata whose error each contrast has, in words."""
    parts = weights_of(contrasts, layout) @ layout.rotation
    used = [np.unique(layout.column_stratum[np.abs(row) > 1e-9]) for row in parts]
    return [" + ".join(layout.strata[s].name for s in row if s >= 0) for row in used]


def _effects(
    compared: Compared, p_adjusted: Floats, contrasts: Sequence[Contrast], strata: Sequence[str], layout: Layout
) -> tuple[Effect, ...]:
    """Return marginal and simple effects, largest first."""
    role = {factor.name: factor.role for factor in layout.factors}
    found = [
        Effect(
            kind=contrast.kind,
            factor=contrast.factor,
            level=contrast.level,
            baseline=contrast.baseline,
            at_factor=contrast.at[0] if contrast.at else None,
            at_level=contrast.at[1] if contrast.at else None,
            role=role[contrast.factor],
            strata=strata[c],
            points=float(compared.estimate[c]),
            lower=float(compared.lower[c]),
            upper=float(compared.upper[c]),
            se=float(compared.se[c]),
            df=float(compared.df[c]),
            p=float(compared.p[c]),
            p_adjusted=float(p_adjusted[c]),
        )
        for c, contrast in enumerate(contrasts)
        if contrast.kind != "mean" and contrast.baseline is not None
    ]
    return tuple(sorted(found, key=lambda effect: -abs(effect.points)))


def _anova(found: Squares, layout: Layout) -> tuple[AnovaRow, ...]:
    """Return the table of the analysis of variance, each stratum's effects followed by its error."""
    by_term = (layout.column_term[:, None] == np.arange(len(layout.terms))).astype(float)
    variances = effect_variances(found, layout) @ by_term
    errors, chance = found.error_mean_squares, chance_variances(found.error_mean_squares, layout.sharing)
    rows = []
    for s, stratum in enumerate(layout.strata):
        for t, term in enumerate(layout.terms):
            if term.stratum != s:
                continue
            ss, ms = float(found.effect[t]), float(found.effect[t]) / term.df
            p = float(f_test(found.effect[t], term.df, found.error[s], found.error_df[s]))
            ratio = float(ms / errors[s]) if errors[s] > 0 else (np.inf if ss > 0 else 0.0)
            rows.append(
                AnovaRow(
                    term.name, term.order, term.group, stratum.name, term.df, ss, ms, ratio, p, float(variances[t])
                )
            )
        df, ss = int(found.error_df[s]), float(found.error[s])
        rows.append(
            AnovaRow(
                f"error ({stratum.name})",
                0,
                CHANCE,
                stratum.name,
                df,
                ss,
                float(errors[s]),
                None,
                None,
                float(chance[s]),
            )
        )
    return tuple(rows)


def _sensitivity(found: Squares, layout: Layout) -> tuple[Sensitivity, ...]:
    """Return total-order Sobol indices and Shapley shares of the factors (Sobol 1993, Owen 2014).

    Of each effect's variance the total-order index counts all for each factor in it, the Shapley share an equal part.
    """
    columns = effect_variances(found, layout)
    involved = layout.column_factors.astype(float)
    fair = involved / np.maximum(involved.sum(axis=1, keepdims=True), 1.0)
    total, shapley = np.maximum(columns @ involved, 0.0), np.maximum(columns @ fair, 0.0)
    group = np.array([layout.terms[t].group for t in layout.column_term[1:]])
    causes = sum(max(float(columns[1:][group == name].sum()), 0.0) for name in CAUSES)
    whole = causes + float(chance_variances(found.error_mean_squares, layout.sharing).sum())
    return tuple(
        Sensitivity(factor.name, factor.role, float(total[f] / whole), float(shapley[f] / whole))
        for f, factor in enumerate(layout.factors)
    )
