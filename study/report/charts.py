"""The numbers behind the report's charts, as plain values that JSON can hold; the page draws them.

Everything is given once, by position: classes, factors, conditions and settings are lists, and trials hold indices
into them, so that 5,000 trials of 60 classes stay a page that a browser opens.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from scipy import stats

from study.attribution import Attribution, Effect, StudyAttribution
from study.config import Level
from study.plan import Condition, Factor, Plan, PlannedTrial
from study.trials import MACRO, OVERALL, Result
from study.verdict import (
    PARTS,
    REPLICATE,
    SUMMARIES,
    Flips,
    Schedule,
    class_label,
    condition_label,
    outcome_label,
    point_label,
    short,
    word,
)

# Enough to see what matters; effects.csv has them all.
MOST_EFFECTS = 60
MOST_TRANSITIONS = 15
Json = dict[str, Any]
Key = TypeVar("Key", bound=Hashable)


def class_names(results: Mapping[str, Result]) -> list[str]:
    """Return the summaries and the classes of a study, in order; nothing where nothing is finished."""
    found = classes_of(results)
    return [MACRO, OVERALL, *found] if found else []


def classes_of(results: Mapping[str, Result]) -> list[str]:
    """Return the classes of a study, in order."""
    return list(dict.fromkeys(name for result in results.values() for name in result.classes))


def chart_data(
    plan: Plan, results: Mapping[str, Result], attribution: StudyAttribution | None, outcomes: Sequence[str]
) -> Json:
    """Return what the charts show.

    Parameters
    ----------
    plan
        The design, with every trial in it.
    results
        Finished trials by key.
    attribution
        Shares and effects, where there are any.
    outcomes
        Such as ``heldout/recall``.
    """
    names = class_names(results)
    found = {(one.outcome, one.class_name): one for one in attribution.attributions} if attribution else {}
    conditions = positions(trial.condition for trial in plan.trials)
    return {
        "outcomes": [dict(zip(("key", "label", "hint"), (key, *outcome_label(key)), strict=True)) for key in outcomes],
        "classes": [class_label(name) for name in names],
        "factors": [
            {"short": short(factor.name), "role": factor.role, "levels": [word(level) for level in factor.levels]}
            for factor in plan.factors
        ],
        "conditions": [{"label": condition_label(one), "query": one.query, "cells": one.n_cells} for one in conditions],
        "t95": [round(float(stats.t.ppf(0.975, df)), 4) for df in range(1, 31)],
        "trials": _trials(plan, results, names, outcomes, conditions),
        "attributions": {
            key: [_attribution(found[key, name]) if (key, name) in found else None for name in names]
            for key in outcomes
        },
        "confusion": _confusions(plan, results, conditions),
    }


def trial_map(plan: Plan, results: Mapping[str, Result], failures: Mapping[str, str]) -> Json:
    """Return which trials are not run (0), failed (1) or finished (2): a row per replicate, a column per point."""
    points = positions(trial.point for trial in plan.trials)
    status: dict[int, list[int]] = {}
    for trial in plan.trials:
        row = status.setdefault(trial.replicate.index, [0] * len(points))
        row[points[trial.point]] = 2 if trial.key in results else int(trial.key in failures)
    return {"points": [point_label(point) for point in points], "status": list(status.values())}


def draws_chart(schedules: Sequence[Schedule], results: Mapping[str, Result]) -> Json:
    """Return how often each labelled cell was drawn, a row per class and a column per schedule."""
    names = classes_of(results)
    return {"classes": names, "values": [[one.mean_draws(name) for one in schedules] for name in names]}


def flip_chart(flips: Flips | None) -> Json:
    """Return the share of cells that ever flip, in percent: for all and each class, held-out and training cells."""
    if flips is None:
        return {"names": [], "series": []}
    rates = _flip_rates(flips, "class")
    return {
        "names": list(rates.index),
        "series": [
            {"name": f"{part} cells", "values": [number(100 * value, 2) for value in rates[part, "ever"]]}
            for part in PARTS
        ],
    }


def flip_tables(flips: Flips) -> list[tuple[str, pd.DataFrame]]:
    """Return how often cells flip, by class and by batch, and the most frequent changes of label."""
    tables = []
    for grouping in ("class", "batch"):
        rates = _flip_rates(flips, grouping)
        table = pd.DataFrame({grouping: rates.index})
        for part in PARTS:
            table[f"{part} cells"] = rates[part, "cells"].to_numpy()
            table[f"{part}: ever flip"] = [_share(value) for value in rates[part, "ever"]]
            table[f"{part}: flips per comparison"] = [_share(value) for value in rates[part, "rate"]]
        again = flips.rates[(flips.rates.condition == REPLICATE) & (flips.rates.part == "training")]
        if len(again):
            by_name = again.set_index(["grouping", "name"])["rate"].to_dict()
            keys = [("all", "") if name == "all cells" else (grouping, name) for name in rates.index]
            table["beside: between replicates, training"] = [_share(by_name.get(key, math.nan)) for key in keys]
        tables.append((f"By {'true class' if grouping == 'class' else grouping}", table))
    top = flips.transitions[flips.transitions.condition != REPLICATE].head(MOST_TRANSITIONS)
    return [*tables, ("Most frequent changes", top[["part", "condition", "from", "to", "flips", "compared", "cells"]])]


def _flip_rates(flips: Flips, grouping: str) -> pd.DataFrame:
    """Rates over all conditions: a row for all cells and each group, columns by part."""
    rates = flips.rates
    over = rates.condition[rates.condition != REPLICATE].iloc[0]  # over any condition, where there are several
    mine = rates[(rates.condition == over) & rates.grouping.isin(["all", grouping])]
    mine = mine.assign(name=mine["name"].where(mine.grouping != "all", "all cells"))
    order = list(dict.fromkeys(mine["name"]))
    wide: pd.DataFrame = mine.pivot(index="name", columns="part", values=["cells", "ever", "rate"]).swaplevel(axis=1)
    return wide.reindex(order)


def _share(value: float) -> str:
    return f"{100 * value:.1f}%" if math.isfinite(value) else ""


def positions(values: Iterable[Key]) -> dict[Key, int]:
    """Number the different values, in order of appearance."""
    return {value: at for at, value in enumerate(dict.fromkeys(values))}


def number(value: float, digits: int) -> float | None:
    """Return a rounded number, or None where JSON has none for it."""
    return round(float(value), digits) if math.isfinite(value) else None


def _trials(
    plan: Plan,
    results: Mapping[str, Result],
    names: Sequence[str],
    outcomes: Sequence[str],
    conditions: Mapping[Condition, int],
) -> Json:
    """Return the finished trials column by column; what a random design draws from a range stays a number."""
    done = [trial for trial in plan.trials if trial.key in results]
    chosen = {factor.name for factor in plan.factors if factor.role == "parameter"}

    def setting(trial: PlannedTrial) -> tuple[tuple[str, Level], ...]:
        return tuple((name, level) for name, level in trial.point if name in chosen)

    settings = positions(setting(trial) for trial in plan.trials)
    return {
        "levels": [_levels(factor, done) for factor in plan.factors],
        "condition": [conditions[trial.condition] for trial in done],
        "setting": [settings[setting(trial)] for trial in done],
        "settings": [[(short(name), word(level)) for name, level in one] for one in settings],
        "replicate": [trial.replicate.index for trial in done],
        "values": {key: _values(key, names, [results[trial.key] for trial in done]) for key in outcomes},
    }


def _levels(factor: Factor, done: Sequence[PlannedTrial]) -> list[Any]:
    if not factor.levels:
        return [trial.levels[factor.name] for trial in done]
    # With the type, because 1 and True are one key.
    place = {(type(level), level): at for at, level in enumerate(factor.levels)}
    return [place[type(trial.levels[factor.name]), trial.levels[factor.name]] for trial in done]


def _values(outcome: str, names: Sequence[str], done: Sequence[Result]) -> list[list[float | None]]:
    """Return an outcome in percent, a list per class with a number per trial; None where it is undefined."""
    part, _, metric = outcome.partition("/")
    known = {MACRO: f"{part}/macro_{metric}", OVERALL: f"{part}/accuracy" if metric == "recall" else ""}
    rows = []
    for name in names:
        key = known.get(name, f"{outcome}/{name}")
        rows.append([100 * result.metrics.get(key, math.nan) for result in done])
    if MACRO in names and done and f"{part}/macro_{metric}" not in done[0].metrics:
        values = np.array(rows[len(SUMMARIES) :], dtype=float)
        some = np.isfinite(values).any(axis=0)
        means = np.full(len(done), math.nan)
        means[some] = np.nanmean(values[:, some], axis=0)
        rows[names.index(MACRO)] = means.tolist()
    return [[number(value, 2) for value in row] for row in rows]


def _attribution(found: Attribution) -> Json:
    """Return what attribution found for one outcome of one class."""
    marginal = [effect for effect in found.effects if effect.kind == "marginal"]
    most = max(MOST_EFFECTS - len(marginal), 0)
    simple = [effect for effect in found.effects if effect.kind != "marginal"][:most]
    block = found.block
    return {
        "reason": found.reason,
        "decomposed": found.method != "none",
        "shares": [
            [one.group, number(one.share, 4), number(one.lower, 4), number(one.upper, 4)] for one in found.shares
        ],
        "chance": [
            [one.label, number(one.share, 4), number(one.lower, 4), number(one.upper, 4), one.note]
            for one in found.chance
        ],
        "block": number(block.relative, 4) if block else None,
        "means": [
            [short(one.factor), word(one.level), number(one.points, 2), number(one.lower, 2), number(one.upper, 2)]
            for one in found.means
        ],
        "effects": [_effect(effect) for effect in sorted((*marginal, *simple), key=lambda one: -abs(one.points))],
        "moreEffects": len(found.effects) - len(marginal) - len(simple),
    }


def _effect(effect: Effect) -> Json:
    at = f"{short(effect.at_factor)}={word(effect.at_level)}" if effect.at_factor else ""
    return {
        "factor": short(effect.factor),
        "change": f"{word(effect.level)} instead of {word(effect.baseline)}",
        "at": at,
        "role": effect.role,
        "points": [number(value, 2) for value in (effect.points, effect.lower, effect.upper)],
        "p": number(effect.p_adjusted, 5),
        "stratum": effect.strata,
        "real": effect.real,
    }


def _confusions(plan: Plan, results: Mapping[str, Result], conditions: Mapping[Condition, int]) -> Json:
    """Return the cells by true and called class, summed over the trials of a condition: part -> list of matrices."""
    sums: dict[str, dict[tuple[int, tuple[str, ...], tuple[str, ...]], tuple[Any, int]]] = {}
    for trial in plan.trials:
        result = results.get(trial.key)
        if result is None:
            continue
        for part, counts in result.confusion.items():
            rows = tuple(result.truth_classes if part == "query" else result.classes)
            key = (conditions[trial.condition], rows, tuple(result.classes))
            total, trials = sums.setdefault(part, {}).get(key, (0, 0))
            sums[part][key] = (total + np.asarray(counts), trials + 1)
    return {
        part: [
            {"condition": at, "rows": rows, "columns": columns, "counts": total.tolist(), "trials": trials}
            for (at, rows, columns), (total, trials) in found.items()
        ]
        for part, found in sums.items()
    }
