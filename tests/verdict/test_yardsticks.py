"""scANVI beside cheaper ways to the same labels: better or worse only where replicates say so."""

from __future__ import annotations

import numpy as np
import pytest

from study.trials.metrics import MACRO
from study.trials.record import Result
from study.verdict.yardsticks import compare_yardsticks, yardstick_sentences
from tests.made import TWO_BY_TWO, controlled, some_result

CLASSES = ["a", "b", "c"]
PLAN = controlled(["logistic", "knn"], TWO_BY_TWO, replicates=5)


def results(gaps: dict[str, float], noise: float, seed: int = 0, replicates: int = 5) -> dict[str, Result]:
    """Recalls of the base trial, which are better than those of logistic regression by some points in each class."""
    random, found = np.random.default_rng(seed), {}
    for trial in PLAN.controls:
        if trial.replicate.index >= replicates:
            continue
        recalls = dict.fromkeys(CLASSES, 0.7) if trial.control != "base" else {n: 0.7 + gaps.get(n, 0) for n in CLASSES}
        recalls = {name: value + random.normal(0, noise) for name, value in recalls.items()}
        metrics = {f"heldout/recall/{name}": value for name, value in recalls.items()}
        metrics["heldout/macro_recall"] = float(np.mean(list(recalls.values())))
        found[trial.key] = some_result(key=trial.key, classes=CLASSES, truth_classes=CLASSES, metrics=metrics)
    return found


def test_what_differs_is_named_class_by_class() -> None:
    table = compare_yardsticks(PLAN.controls, results({"a": 0.2, "b": -0.2}, 0.01))
    is_ = table.set_index(["yardstick", "class"])["scANVI is"]
    assert is_["logistic"].to_dict() == {MACRO: "not told apart", "a": "better", "b": "worse", "c": "not told apart"}
    row = table.set_index(["yardstick", "class"]).loc[("knn", "a")]
    assert 15 < row["lower"] < row["difference"] < row["upper"] < 25 and row["scANVI"] - row["recall"] == pytest.approx(
        row["difference"]
    )
    said = yardstick_sentences(table)
    assert "logistic regression" in said[0] and "better in a; worse in b" in said[0] and "latent space" in said[1]


def test_what_is_alike_is_hardly_ever_told_apart() -> None:
    named = [
        (compare_yardsticks(PLAN.controls, results({}, 0.05, seed))["scANVI is"] != "not told apart").any()
        for seed in range(200)
    ]
    assert np.mean(named) < 0.09, "5% of families, and the error of 200 draws"


def test_no_interval_is_wider_than_recalls_can_differ() -> None:
    table = compare_yardsticks(PLAN.controls, results({"a": 0.2}, 0.3, replicates=2))
    assert table["lower"].min() == -100 and table["upper"].max() == 100


def test_one_replicate_tells_nothing_apart_and_none_has_no_table() -> None:
    table = compare_yardsticks(PLAN.controls, results({"a": 0.5}, 0.01, replicates=1))
    assert set(table["scANVI is"]) == {"not told apart"} and table["lower"].isna().all()
    assert "[" not in yardstick_sentences(table)[0]
    empty = compare_yardsticks(PLAN.controls, {})
    assert empty.empty and "scANVI is" in empty and yardstick_sentences(empty) == []
