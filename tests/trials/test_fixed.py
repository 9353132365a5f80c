"""Means over classes: over the same ones in every trial, whatever a single cell does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from study.plan.split import held_out
from study.trials.fixed import FEWEST_CELLS, fixed_classes, left_out_of, mean_over, steady
from study.trials.record import Predictions, Result
from study.trials.store import read_result, write_result
from study.trials.tables import count_frame
from tests.made import planned, some_result

CLASSES = ["large", "small", "single"]


def trial(heldout: list[list[int]], train: list[list[int]], **changes: object) -> Result:
    confusion = {"heldout": heldout, "train": train}
    metrics = {"heldout/macro_recall": 0.5, "train/macro_recall": 0.5}
    return some_result(classes=CLASSES, truth_classes=CLASSES, confusion=confusion, metrics=metrics, folds=3, **changes)


GOOD = trial([[20, 0, 0], [1, 5, 0], [0, 0, 0]], [[40, 0, 0], [0, 12, 0], [0, 0, 1]])
# The single cell is held out here, and called something else; nothing is called small.
BAD = trial([[20, 0, 0], [6, 0, 0], [1, 0, 0]], [[40, 0, 0], [12, 0, 0], [0, 0, 0]])


def test_a_single_cell_does_not_move_the_mean() -> None:
    assert steady(GOOD, "heldout").tolist() == steady(BAD, "heldout").tolist() == [True, True, False]
    assert fixed_classes([GOOD, BAD], "heldout/recall") == ("large", "small")
    assert mean_over(GOOD, "heldout/recall", ("large", "small")) == pytest.approx((1 + 5 / 6) / 2)
    assert left_out_of({"a": GOOD, "b": BAD}, "heldout/recall") == ("single",)


def test_precision_is_over_classes_that_every_trial_calls() -> None:
    assert fixed_classes([GOOD], "train/precision") == ("large", "small")
    assert fixed_classes([GOOD, BAD], "train/precision") == ("large",)


def test_one_trial_tells_which_classes_have_enough_cells_in_all_replicates() -> None:
    """By the cells themselves: in each of many splits the classes that a trial names have as many cells."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), [3, 12, 14, 15, 16, 20, 40, 200]).astype(np.int32)
    labels = random.permutation(labels)
    for folds in (2, 3, 5):
        sizes = [np.bincount(labels[held_out(labels, fold, folds)], minlength=8) for fold in range(12)]
        for out in sizes:
            classes = [str(code) for code in range(8)]
            confusion = {"heldout": np.diag(out).tolist(), "train": np.diag(np.bincount(labels) - out).tolist()}
            result = some_result(classes=classes, truth_classes=classes, confusion=confusion, folds=folds)
            assert (np.min(sizes, axis=0)[steady(result, "heldout")] >= FEWEST_CELLS).all()


def test_where_no_class_has_so_many_all_with_cells_count() -> None:
    few = trial([[2, 0, 0], [0, 1, 0], [0, 0, 0]], [[4, 0, 0], [0, 2, 0], [0, 0, 1]])
    assert steady(few, "heldout").tolist() == [True, True, False]


def test_results_of_earlier_versions_are_read_with_the_same_mean(tmp_path: Path) -> None:
    nothing = Predictions(np.zeros((1, 3)), np.zeros(0, np.uint16), np.zeros(0, np.float32), np.array([0]))
    write_result(tmp_path, GOOD, nothing)
    found = read_result(tmp_path, GOOD.key)
    assert found is not None
    assert found.metrics["heldout/macro_recall"] == pytest.approx((1 + 5 / 6) / 2)
    assert found.metrics["train/macro_recall"] == 1


def test_the_table_that_is_attributed_has_that_mean() -> None:
    made = planned("{scanvi.max_epochs: {levels: [1, 2]}}", replicates=1)
    results = {one.key: replace(part, key=one.key) for one, part in zip(made.trials, (GOOD, BAD), strict=True)}
    table = count_frame(made, results, ["heldout/recall"]).query("class_name == '(macro)'")
    assert (table["correct"] / table["total"]).tolist() == pytest.approx([(1 + 5 / 6) / 2, 0.5])
