"""What trials called the cells: the predictions of one as a table of cells, and the confusion of some as one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from study.cells import Cells
from study.plan import Plan
from study.trials.fixed import fixed_classes, mean_over
from study.trials.metrics import HELD_OUT, MACRO, MEASURES, OVERALL, QUERY, RECALL, TRAIN, metric
from study.trials.record import Predictions, Result


def cell_frame(result: Result, found: Predictions, cells: Cells) -> pd.DataFrame:
    """Return what a trial called every cell.

    Parameters
    ----------
    result
        The trial.
    found
        Its predictions.
    cells
        Its condition.

    Returns
    -------
    One row per cell, by name: `part` (heldout, train, query; ``left out`` for a reference cell that would have been
    a minibatch of its own), `batch`, `label` (the true one; missing where it is unknown), `predicted` and `confidence`
    (its probability).
    """
    n = cells.n_reference
    part = np.repeat([TRAIN, QUERY], [n, cells.n_query]).astype(object)
    part[[row for row in result.left_out if row < n]] = "left out"
    part[found.held_out] = HELD_OUT
    classes = np.array([*cells.classes, None], dtype=object)  # the last for codes of -1
    truth = np.array([*cells.truth_classes, None], dtype=object)
    called = np.concatenate([found.probabilities.argmax(axis=1), found.query_label])
    return pd.DataFrame(
        {
            "part": part,
            "batch": np.array(cells.batches, dtype=object)[cells.batch],
            "label": np.concatenate([classes[cells.labels], truth[cells.truth]]),
            "predicted": classes[called],
            "confidence": np.concatenate([found.probabilities.max(axis=1), found.query_confidence]),
        },
        index=pd.Index(cells.names.astype(str), name="cell"),
    )


def confusion_frame(found: Iterable[Result], part: str) -> pd.DataFrame:
    """Return cells by true (rows) and called class (columns), summed over trials.

    Parameters
    ----------
    found
        At least one trial.
    part
        ``heldout``, ``train`` or ``query``; then the rows go on with labels that the reference lacks.
    """
    tables = [
        pd.DataFrame(one.confusion[part], one.truth_classes if part == QUERY else one.classes, one.classes)
        for one in found
    ]
    return pd.concat(tables).groupby(level=0, sort=False).sum()


def trial_frame(plan: Plan, results: Mapping[str, Result]) -> pd.DataFrame:
    """Return one row per finished trial: factors, replicate, seed, fold, key, probes and all metrics."""
    rows = []
    for planned in plan.trials:
        result = results.get(planned.key)
        if result is not None:
            simple = {name: value for name, value in result.probes.items() if isinstance(value, int | float)}
            rows.append({**_where(plan, planned.key), "cells": result.query_cells, **simple, **result.metrics})
    return pd.DataFrame(rows)


def probe_frame(plan: Plan, results: Mapping[str, Result]) -> pd.DataFrame:
    """Return every probe of every finished trial of the table: one row per trial, probe and class ('' for all)."""
    rows = []
    for planned in plan.trials:
        result = results.get(planned.key)
        for name, value in result.probes.items() if result is not None else ():
            by_class = value if isinstance(value, Mapping) else {"": value}
            where = _where(plan, planned.key) | {"probe": name}
            rows += [{**where, "class_name": one, "value": float(number)} for one, number in by_class.items()]
    return pd.DataFrame(rows)


def recall_frame(plan: Plan, results: Mapping[str, Result]) -> pd.DataFrame:
    """Return one row per finished trial of the table, part and true class: recall, precision, f1, support.

    `part` is ``heldout``, ``train`` or ``query`` (where truth is known). What is undefined is NaN.
    """
    rows = []
    for planned in plan.trials:
        result = results.get(planned.key)
        if result is None:
            continue
        for part in result.confusion:
            where = _where(plan, planned.key) | {"part": part}
            for name in result.truth_classes if part == QUERY else result.classes:
                found = {one: result.metrics.get(metric(part, one, name), math.nan) for one in MEASURES}
                rows.append({**where, "class_name": name, **found})
    return pd.DataFrame(rows)


def count_frame(plan: Plan, results: Mapping[str, Result], outcomes: Iterable[str]) -> pd.DataFrame:
    """Return a long table for attribution: one row per trial, outcome and class.

    Parameters
    ----------
    outcomes
        Such as ``heldout/recall``, ``train/recall``, ``train/precision``, ``query/recall``.

    Returns
    -------
    Columns of the factors, `replicate`, `seed`, `fold`, `trial_key`, `outcome`, `class_name` (a class, or `MACRO`, or
    `OVERALL`), `correct` and `total`. For the macro mean, over `fixed_classes` of all these trials, `correct` is the
    mean times the number of cells.
    """
    rows: list[dict[str, Any]] = []
    wanted = list(outcomes)
    used = [results[planned.key] for planned in plan.trials if planned.key in results]
    fixed = {outcome: fixed_classes(used, outcome) for outcome in wanted}
    for planned in plan.trials:
        result = results.get(planned.key)
        if result is None:
            continue
        where = _where(plan, planned.key)
        for outcome in wanted:
            part, measured = outcome.split("/")
            if part not in result.confusion:
                continue
            matrix = np.asarray(result.confusion[part])
            correct = np.diag(matrix)
            axis = 1 if measured == RECALL else 0
            total = matrix.sum(axis=axis)[: len(correct)]
            line = {**where, "outcome": outcome}
            rows += [
                {**line, "class_name": name, "correct": float(k), "total": float(n)}
                for name, k, n in zip(result.classes, correct, total, strict=True)
            ]
            macro = mean_over(result, outcome, fixed[outcome]) * matrix.sum()
            rows.append({**line, "class_name": MACRO, "correct": macro, "total": float(matrix.sum())})
            if measured == RECALL:
                rows.append(
                    {**line, "class_name": OVERALL, "correct": float(correct.sum()), "total": float(matrix.sum())}
                )
    return pd.DataFrame(rows)


def _where(plan: Plan, key: str) -> dict[str, Any]:
    planned = plan.by_key[key]
    replicate = planned.replicate
    return {
        **planned.levels,
        "replicate": replicate.index,
        "seed": replicate.seed,
        "fold": replicate.fold,
        "trial_key": key,
    }
