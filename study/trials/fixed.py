"""Means over classes that are over the same classes in every trial: else a mean moves with which classes it is over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from study.trials.metrics import HELD_OUT, MACRO_RECALL, PRECISION, QUERY, RECALL, TRAIN, metric
from study.trials.record import Result

# Fewer cells of a class in some replicate let its recall jump so far that it moves the mean of all classes.
FEWEST_CELLS = 5
Matrix = npt.NDArray[np.int64]


def steady(result: Result, part: str) -> npt.NDArray[np.bool_]:
    """Return which classes have 5 cells of this part in every replicate of the study that a trial is of.

    Which cells are held out differs between replicates, and how many hardly: of n labelled cells of a class, n / folds.
    So one trial tells it for all of them, and further replicates change nothing. Of query cells it is what they are.

    Returns
    -------
    Shape (n_classes,). All classes that have cells, if none has so many.
    """
    sizes = {name: _matrix(result, name).sum(axis=1)[: len(result.classes)] for name in result.confusion}
    here = sizes[part]
    if {HELD_OUT, TRAIN} <= sizes.keys() and part != QUERY:
        every = sizes[HELD_OUT] + sizes[TRAIN]
        least = every // result.folds
        here = least if part == HELD_OUT else every - least - 1
    found: npt.NDArray[np.bool_] = here >= FEWEST_CELLS
    return found if found.any() else sizes[part] > 0


def fixed_classes(results: Iterable[Result], outcome: str) -> tuple[str, ...]:
    """Return the classes that a mean of an outcome is over: steady in all trials, and for precision called in all.

    Parameters
    ----------
    results
        The trials; those without this part are passed over.
    outcome
        Such as ``heldout/recall``.
    """
    part, measured = outcome.split("/")
    kept: dict[str, bool] = {}
    for result in results:
        if part not in result.confusion:
            continue
        here = steady(result, part)
        if measured == PRECISION:
            here = here & (_matrix(result, part).sum(axis=0) > 0)
        for name, good in zip(result.classes, here.tolist(), strict=True):
            kept[name] = kept.get(name, True) and good
    return tuple(name for name, good in kept.items() if good)


def mean_over(result: Result, outcome: str, classes: Sequence[str]) -> float:
    """Return the mean of an outcome over some classes of a trial, from 0 to 1; NaN where there is none."""
    part, measured = outcome.split("/")
    matrix = _matrix(result, part)[: len(result.classes)]
    total = matrix.sum(axis=1 if measured == RECALL else 0)
    which = np.isin(result.classes, classes) & (total > 0)
    return float(np.mean(np.diag(matrix)[which] / total[which])) if which.any() else float("nan")


def with_fixed_means(result: Result) -> dict[str, float]:
    """Return the metrics of a trial with macro recall over its steady classes; that of all is `balanced_accuracy`."""
    means = {
        metric(part, MACRO_RECALL): mean_over(result, metric(part, RECALL), _names(result, steady(result, part)))
        for part in result.confusion
        if metric(part, MACRO_RECALL) in result.metrics
    }
    return {**result.metrics, **means}


def _names(result: Result, which: npt.NDArray[np.bool_]) -> list[str]:
    return [name for name, mine in zip(result.classes, which, strict=True) if mine]


def _matrix(result: Result, part: str) -> Matrix:
    return np.asarray(result.confusion[part])


def left_out_of(results: Mapping[str, Result], outcome: str) -> tuple[str, ...]:
    """Return the classes that a mean of an outcome leaves out."""
    classes = next(iter(results.values())).classes if results else []
    fixed = fixed_classes(results.values(), outcome)
    return tuple(name for name in classes if name not in fixed)
