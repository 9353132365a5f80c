"""From the table of trials to what explains its differences: shares, chance by stratum, effects in points.

Each class and outcome is one table (a value per trial). Chance has the strata of the stage tree; what replicates
differ in (held-out cells, seed) stands apart. The method and its sources: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import special

from study.attribution.balanced import Decomposition, describe
from study.attribution.drawn import attribute_random
from study.attribution.effects import Contrast, adjust_effects, compare, contrasts_of, holm, weights_of
from study.attribution.findings import Attribution, StudyAttribution
from study.attribution.intervals import share_bounds
from study.attribution.layout import CAUSES, Floats, Layout, layout_of, squares
from study.attribution.mixed import compare_unbalanced, fit_unbalanced
from study.attribution.tables import ClassTable, class_table, reason_not_to, slope
from study.config import Level
from study.plan import Factor, Stratum

NAMES = ["outcome", "class_name"]


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
        The factors of the crossed design. If one has no levels (it was drawn from a range) the design is a random
        one, and a mixed model takes it (`drawn`).
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
    parts = {(str(outcome), str(name)): rows for (outcome, name), rows in table.groupby(NAMES, sort=False)}
    if any(not factor.levels for factor in factors):
        drawn = [attribute_random(*name, rows, factors, strata) for name, rows in parts.items()]
        return StudyAttribution(tuple(factors), tuple(strata), _corrected(drawn))
    layout = layout_of(factors, strata)
    tables = {name: class_table(rows, layout) for name, rows in parts.items()}
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


def _fit_all(
    tables: list[ClassTable], reasons: list[str], layout: Layout, weights: Floats
) -> tuple[list[Decomposition | None], list[str]]:
    """Fit what can be fitted: complete tables together, those with missing trials one by one."""
    fits: list[Decomposition | None] = [None] * len(tables)
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
            fits[i] = Decomposition(found[at], bounds[at], compared[at], "balanced", "")
    return fits, reasons


def _fit_missing(table: ClassTable, layout: Layout, weights: Floats) -> Decomposition:
    """Fit a table with missing trials by the mixed model."""
    fit = fit_unbalanced(table.eta, layout)
    fitted = special.expit(fit.fitted)
    points = np.where(table.present, table.points, 100 * fitted)
    slopes = np.where(table.present, table.slopes, slope(fitted))
    reason = f"{int((~table.present).sum())} of {table.present.size} trials are missing: a mixed model, approximate"
    compared = compare_unbalanced(weights, points, slopes, fit, layout)
    return Decomposition(fit.squares, share_bounds(fit.squares, layout), compared, "mixed model", reason)


def _findings(
    tables: Mapping[tuple[str, str], ClassTable],
    fits: Sequence[Decomposition | None],
    reasons: Sequence[str],
    contrasts: Sequence[Contrast],
    layout: Layout,
) -> tuple[Attribution, ...]:
    """Correct over the study, and put the numbers into words and values."""
    adjusted = _adjusted([outcome for outcome, _ in tables], fits, contrasts, layout)
    found = []
    for i, ((outcome, name), table) in enumerate(tables.items()):
        points, fit = table.points, fits[i]
        shown = Attribution(
            outcome,
            name,
            "none",
            reasons[i],
            float(np.nanmean(points)) if np.isfinite(points).any() else float("nan"),
            table.support,
            int(table.present.sum()),
            len(table.correct),
        )
        found.append(describe(shown, fit, table, adjusted[i], contrasts, layout) if fit else shown)
    return tuple(found)


def _adjusted(
    outcomes: Sequence[str], fits: Sequence[Decomposition | None], contrasts: Sequence[Contrast], layout: Layout
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


def _corrected(found: Sequence[Attribution]) -> tuple[Attribution, ...]:
    """Correct the p values of a random design by Holm over all classes of an outcome."""
    corrected = []
    for one in found:
        family = [other for other in found if other.outcome == one.outcome]
        groups = [share.p for other in family for share in other.shares if share.p is not None]
        effects = [effect.p for other in family for effect in other.effects]
        by_p = dict(zip(groups, holm(np.array(groups)).tolist(), strict=True))
        by_effect = dict(zip(effects, holm(np.array(effects)).tolist(), strict=True))
        shares = (replace(s, p_adjusted=None if s.p is None else by_p[s.p]) for s in one.shares)
        tested = (replace(effect, p_adjusted=by_effect[effect.p]) for effect in one.effects)
        corrected.append(replace(one, shares=tuple(shares), effects=tuple(tested)))
    return tuple(corrected)
