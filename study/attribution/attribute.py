"""From the table of trials to what explains its differences: shares, chance by stratum, effects in points.

Each class and outcome is one table (a value per trial). Chance has the strata of the stage tree; what replicates
differ in (held-out cells, seed) stands apart. The method and its sources: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from study.attribution.balanced import Decomposition, With, describe, strata_in_words
from study.attribution.correction import SIGNIFICANT, adjust_effects, holm, outcome_weights
from study.attribution.drawn import attribute_random
from study.attribution.effects import Contrast, Family, compare, contrasts_of, weights_of
from study.attribution.findings import Attribution, Method, StudyAttribution
from study.attribution.intervals import share_bounds
from study.attribution.layout import CAUSES, Floats, Layout, Squares, layout_of, squares, stacked
from study.attribution.mixed import exact_variances, fit_unbalanced
from study.attribution.moderation import piece_ratios
from study.attribution.tables import MIN_SUPPORT, ClassTable, class_table, reason_not_to, slope
from study.config import Level
from study.plan import Factor, Stratum
from study.trials import MACRO, OVERALL

NAMES = ["outcome", "class_name"]


def attribute_study(
    table: pd.DataFrame,
    factors: Sequence[Factor],
    strata: Sequence[Stratum],
    baselines: Mapping[str, Level] | None = None,
    level: float = SIGNIFICANT,
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
    level
        Of the 5% that a study may name something falsely, what this look at it may use (`looks`).

    Returns
    -------
    One `Attribution` per outcome and class, in order of appearance. p values of effects are adjusted by weighted Holm
    over all effects of all classes of all outcomes, the first outcome before the others, marginal and simple ones with
    half of the error each; those of groups over all groups of all classes and outcomes. They are adjusted for the other
    looks too, so that 5% is the limit whatever the look may use.

    Raises
    ------
    ValueError
        If the table and the design do not fit each other.
    """
    parts = {(str(outcome), str(name)): rows for (outcome, name), rows in table.groupby(NAMES, sort=False)}
    if any(not factor.levels for factor in factors):
        drawn = [attribute_random(*name, rows, factors, strata, level) for name, rows in parts.items()]
        return StudyAttribution(tuple(factors), tuple(strata), _corrected(drawn, level))
    layout = layout_of(factors, strata)
    tables = {name: class_table(rows, layout) for name, rows in parts.items()}
    return StudyAttribution(layout.factors, layout.strata, attribute_tables(tables, layout, baselines, level))


def attribute_tables(
    tables: Mapping[tuple[str, str], ClassTable],
    layout: Layout,
    baselines: Mapping[str, Level] | None = None,
    level: float = SIGNIFICANT,
) -> tuple[Attribution, ...]:
    """Attribute tables that are already arranged, by outcome and class name: the inside of `attribute_study`."""
    contrasts = contrasts_of(layout, baselines)
    weights = weights_of(contrasts, layout)
    fits, reasons = _fit_all(tables, layout, weights, level)
    return _findings(tables, fits, reasons, contrasts, layout, level)


@dataclass(frozen=True, eq=False)
class _Arranged:
    """One table ready to be decomposed; what is missing is filled as the mixed model fits it."""

    squares: Squares
    eta: Floats
    points: Floats
    slopes: Floats
    exact: Floats
    method: Method = "balanced"
    reason: str = ""


def _fit_all(
    tables: Mapping[tuple[str, str], ClassTable], layout: Layout, weights: Floats, level: float
) -> tuple[list[Decomposition | None], list[str]]:
    """Fit what can be fitted, the classes of an outcome together: they share what is known of errors."""
    fits: list[Decomposition | None] = [None] * len(tables)
    reasons = [reason_not_to(table, layout) for table in tables.values()]
    families: dict[tuple[object, ...], dict[int, _Arranged]] = {}
    for i, ((outcome, _), table) in enumerate(tables.items()):
        if reasons[i]:
            continue
        try:
            one = _arranged(table, layout, weights)
        except ValueError as error:
            reasons[i] = str(error)
            continue
        families.setdefault((outcome, table.few, len(table.correct), *one.squares.error_df), {})[i] = one
    names = list(tables)
    for members in families.values():
        proper = np.array([names[i][1] not in (MACRO, OVERALL) for i in members])
        fits_of = _fit_family(list(members.values()), proper, layout, weights, level)
        for i, fit in zip(members, fits_of, strict=True):
            fits[i] = fit
    return fits, reasons


def _arranged(table: ClassTable, layout: Layout, weights: Floats) -> _Arranged:
    """Return a table with its sums of squares, by the mixed model where trials are missing.

    Logits of few cells are coarse, and far out where all are right: these are taken in points.
    """
    if table.few:
        return _arranged_in_points(table, layout, weights)
    if table.present.all():
        plain = np.ones(len(weights))
        return _Arranged(squares(table.eta, layout), table.eta, table.points, table.slopes, plain)
    fit = fit_unbalanced(table.eta, layout)
    fitted = special.expit(fit.fitted)
    eta = np.where(table.present, table.eta, fit.fitted)
    points = np.where(table.present, table.points, 100 * fitted)
    slopes = np.where(table.present, table.slopes, slope(fitted))
    exact = exact_variances(weights, slopes, fit, layout)
    return _Arranged(fit.squares, eta, points, slopes, exact, "mixed model", _missing(table))


def _missing(table: ClassTable) -> str:
    return f"{int((~table.present).sum())} of {table.present.size} trials are missing: a mixed model, approximate"


def _arranged_in_points(table: ClassTable, layout: Layout, weights: Floats) -> _Arranged:
    """Return a table of few cells, its percentages in the place of its logits."""
    points, ones, exact = table.points, np.ones_like(table.points), np.ones(len(weights))
    reason = f"few cells ({table.support:.0f} on average): effects alone, {MIN_SUPPORT} are needed for shares"
    if table.present.all():
        return _Arranged(squares(points, layout), points, points, ones, exact, "few cells", reason)
    fit = fit_unbalanced(points, layout)
    points = np.where(table.present, points, fit.fitted)
    exact = exact_variances(weights, ones, fit, layout)
    return _Arranged(fit.squares, points, points, ones, exact, "few cells", f"{reason}; {_missing(table)}")


def _fit_family(
    members: Sequence[_Arranged], proper: NDArray[np.bool_], layout: Layout, weights: Floats, level: float
) -> list[Decomposition]:
    """Decompose the tables of one outcome."""
    eta, points, slopes, exact = (
        np.stack([getattr(one, name) for one in members]) for name in ("eta", "points", "slopes", "exact")
    )
    found = stacked([one.squares for one in members])
    family = Family(eta, points, slopes, found, proper, exact)
    judges = family.judges
    ratios = piece_ratios(eta[judges], found[judges], layout)
    compared = compare(weights, family, layout)
    if members[0].method == "few cells":
        return [
            Decomposition(found[i], ratios, None, compared[i], one.method, one.reason) for i, one in enumerate(members)
        ]
    bounds = share_bounds(found, layout, ratios, level=level)
    return [
        Decomposition(found[i], ratios, bounds[i], compared[i], one.method, one.reason) for i, one in enumerate(members)
    ]


def _findings(
    tables: Mapping[tuple[str, str], ClassTable],
    fits: Sequence[Decomposition | None],
    reasons: Sequence[str],
    contrasts: Sequence[Contrast],
    layout: Layout,
    level: float,
) -> tuple[Attribution, ...]:
    """Correct over the study, and put the numbers into words and values."""
    adjusted = _adjusted([outcome for outcome, _ in tables], fits, contrasts, layout, level)
    compared = With(contrasts, strata_in_words(contrasts, layout), layout)
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
        found.append(describe(shown, fit, table, adjusted[i], compared) if fit else shown)
    return tuple(found)


def _adjusted(
    outcomes: Sequence[str],
    fits: Sequence[Decomposition | None],
    contrasts: Sequence[Contrast],
    layout: Layout,
    level: float,
) -> dict[int, tuple[Floats, Floats]]:
    """Return, by table, the p values of groups ``[3]`` and effects ``[contrast]``, corrected over the whole study."""
    had = np.array([group in layout.groups for group in CAUSES])
    mine = {i: fit for i, fit in enumerate(fits) if fit}
    if not mine:
        return {}
    effects = adjust_effects(
        np.stack([fit.compared.p for fit in mine.values()]), contrasts, [outcomes[i] for i in mine], level
    )
    groups = {i: fit.bounds.p.copy() for i, fit in mine.items() if fit.bounds}
    if groups:
        weights = outcome_weights([outcomes[i] for i in groups])
        p = np.stack([one[had] for one in groups.values()])
        for one, corrected in zip(
            groups.values(), holm(p, np.broadcast_to(weights[:, None], p.shape), level), strict=True
        ):
            one[had] = corrected
    none = np.ones(len(CAUSES))
    return {i: (groups.get(i, none), of_effects) for i, of_effects in zip(mine, effects, strict=True)}


def _corrected(found: Sequence[Attribution], level: float) -> tuple[Attribution, ...]:
    """Correct the p values of a random design by weighted Holm over all classes of all outcomes."""
    weights = outcome_weights([one.outcome for one in found])
    groups = _holm_of([[share.p for share in one.shares if share.p is not None] for one in found], weights, level)
    effects = _holm_of([[effect.p for effect in one.effects] for one in found], weights, level)
    corrected = []
    for one, by_group, by_effect in zip(found, groups, effects, strict=True):
        shares = (replace(s, p_adjusted=None if s.p is None else by_group.pop(0)) for s in one.shares)
        tested = (replace(effect, p_adjusted=by_effect.pop(0)) for effect in one.effects)
        corrected.append(replace(one, shares=tuple(shares), effects=tuple(tested)))
    return tuple(corrected)


def _holm_of(p: Sequence[Sequence[float]], weights: Floats, level: float) -> list[list[float]]:
    """Return p values adjusted over all tables, in lists by table as they came."""
    flat = np.array([value for values in p for value in values])
    adjusted = iter(holm(flat, np.repeat(weights, [len(values) for values in p]), level).tolist())
    return [[next(adjusted) for _ in values] for values in p]
