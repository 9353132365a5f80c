"""Metrics, by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as known

from study.plan.split import split_cells
from study.trials.metrics import class_metrics, measure, probability_metrics
from tests.made import cells_of


def test_recall_and_precision_are_not_mixed_up() -> None:
    matrix = np.array([[8, 2], [5, 5]])  # rows are true
    found = class_metrics(matrix, ("a", "b"))
    assert found["recall/a"] == 0.8
    assert found["precision/a"] == 8 / 13
    assert found["recall/b"] == 0.5
    assert found["precision/b"] == 5 / 7
    assert found["macro_recall"] == found["balanced_accuracy"] == 0.65
    assert found["accuracy"] == 13 / 20


def test_what_is_undefined_is_absent() -> None:
    found = class_metrics(np.array([[3, 0, 0], [1, 0, 0], [0, 0, 0]]), ("a", "b", "c"))
    assert "precision/b" not in found
    assert "recall/c" not in found
    assert found["recall/b"] == 0
    assert found["macro_recall"] == 0.5, "over the two classes with cells"


def test_labels_that_only_the_query_has_count_as_wrong() -> None:
    found = class_metrics(np.array([[3, 1], [0, 4], [2, 0]]), ("a", "b", "novel"))
    assert found["accuracy"] == 7 / 10
    assert found["support/novel"] == 2
    assert "recall/novel" not in found
    assert found["precision/a"] == 3 / 5


def test_probability_metrics_against_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    p = generator.dirichlet(np.ones(4), size=200).astype(np.float32)
    truth = generator.integers(0, 4, 200).astype(np.int32)
    found = probability_metrics(p, truth)
    assert found["nll"] == pytest.approx(known.log_loss(truth, p.astype(float), labels=range(4)), rel=1e-5)
    assert found["brier"] == pytest.approx(((p - np.eye(4)[truth]) ** 2).sum(axis=1).mean(), rel=1e-6)


def test_calibration_error_by_hand() -> None:
    sure = np.array([[0.9, 0.1]] * 10, dtype=np.float32)
    assert probability_metrics(sure, np.array([0] * 9 + [1], dtype=np.int32))["ece"] == pytest.approx(0, abs=1e-6)
    assert probability_metrics(sure, np.array([0] * 5 + [1] * 5, dtype=np.int32))["ece"] == pytest.approx(0.4, abs=1e-6)


def test_each_part_counts_its_own_cells() -> None:
    some = cells_of([0, 1] * 30, 12)
    parts = split_cells(some, 0, 3, 128)
    p = np.zeros((72, 2), dtype=np.float32)
    p[:, 0] = 1
    p[parts.labelled] = np.eye(2, dtype=np.float32)[some.labels[parts.labelled]]
    found = measure(p, some, parts)
    assert found.metrics["train/accuracy"] == 1
    assert found.metrics["heldout/recall/c0"] == 1
    assert found.metrics["heldout/recall/c1"] == 0
    assert found.confusion["heldout"].sum() == parts.held_out.size
    assert "query" not in found.confusion, "its truth is unknown"
