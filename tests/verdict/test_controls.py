"""Controls beside the table: how they are judged."""

from dataclasses import replace

import numpy as np
import pytest

from study.config.composition import compose
from study.plan.split import split_cells
from study.plan.tree import PlannedTrial
from study.trials.logistic import fit_logistic
from study.trials.metrics import measure
from study.trials.record import Predictions, Result
from study.verdict.controls import (
    Detail,
    allowed_drift,
    control_frames,
    judge_controls,
    matched_by_chance,
)
from tests.made import TWO_BY_TWO, controlled, controls_named, pbmc, some_result, with_self


def test_matches_by_chance_are_those_of_permutations() -> None:
    random = np.random.default_rng(0)
    truth, called = random.integers(4, size=60) // 2, random.integers(3, size=60)
    matrix = np.zeros((3, 3), dtype=np.int64)
    np.add.at(matrix, (truth, called), 1)
    matches = [(random.permutation(truth) == called).sum() for _ in range(20_000)]
    mean, variance = matched_by_chance(matrix)
    assert mean == pytest.approx(np.mean(matches), abs=0.05)
    assert variance == pytest.approx(np.var(matches), rel=0.04)
    assert matched_by_chance(np.array([[5, 0], [7, 0]])) == (5.0, 0.0), "all called one class: nothing to vary"


@pytest.mark.parametrize(
    ("overrides", "batches", "limit"),
    [
        ([], 3, 0.0),
        (["scvi.norm=layer", "scanvi.linear_classifier=false"], 1, 0.0),
        (["scanvi.linear_classifier=false"], 3, 0.01),
        (["scvi.extra.encode_covariates=true"], 3, 1e-6),
        (["scvi.extra.encode_covariates=true"], 1, None),
    ],
)
def test_where_surgery_may_move_the_reference(overrides: list[str], batches: int, limit: float | None) -> None:
    assert allowed_drift(compose(overrides), batches)[0] == limit


class Bench:
    """Controls with made-up results, to be judged: what a control's trials found is stated."""

    def __init__(self, control: str, *overrides: str, replicates: int = 3) -> None:
        self.plan = controlled([control], TWO_BY_TWO, *overrides, replicates=replicates)
        self.control = control
        self.results: dict[str, Result] = {}
        self.predictions: dict[str, Predictions] = {}
        self.failures: dict[str, str] = {}
        for trial in (*controls_named(self.plan, "base"), *controls_named(self.plan, control)):
            self.set(trial, 0.8)

    def set(self, trial: PlannedTrial, recall: float, matrix: object = ((40, 10), (10, 40)), shift: float = 0) -> None:
        """State what a trial found; `shift` moves its probabilities."""
        found = {"heldout/macro_recall": recall}
        self.results[trial.key] = some_result(key=trial.key, metrics=found, confusion={"heldout": matrix})
        probabilities = np.full((4, 2), 0.5, dtype=np.float32) + np.float32(shift)
        query = np.zeros(3, dtype=np.uint16)
        self.predictions[trial.key] = Predictions(probabilities, query, query.astype(np.float32), np.array([0]))

    def judged(self) -> tuple[str, str, tuple[Detail, ...]]:
        """Judge the control: outcome, what was found, and its details."""
        (one,) = judge_controls(
            self.plan.controls, self.results, self.failures, self.predictions.__getitem__, with_self()
        )
        assert one.control == self.control
        return one.outcome, one.found, one.details


def test_repeat_passes_only_bit_for_bit() -> None:
    bench = Bench("repeat")
    assert bench.judged()[0] == "pass"
    bench.set(controls_named(bench.plan, "repeat")[1], 0.8, shift=1e-7)
    outcome, found, details = bench.judged()
    assert outcome == "fail" and "does not repeat" in found
    assert [one.value > 0 for one in details] == [False, True, False]


def test_surgery_fails_where_the_reference_moves_and_nothing_allows_it() -> None:
    bench = Bench("surgery")
    assert bench.judged()[0] == "pass"
    moved = [trial for trial in controls_named(bench.plan, "surgery") if trial.condition.n_cells][1]
    bench.set(moved, 0.8, shift=0.004)
    assert bench.judged()[0] == "fail"
    leaky = Bench("surgery", "scanvi.linear_classifier=false")
    moved = [trial for trial in controls_named(leaky.plan, "surgery") if trial.condition.n_cells][1]
    leaky.set(moved, 0.8, shift=0.004)
    assert leaky.judged()[0] == "pass" and "up to 0.01" in leaky.judged()[1]
    leaky.set(moved, 0.8, shift=0.02)
    assert leaky.judged()[0] == "fail"


def test_shuffled_fails_where_labels_are_still_found() -> None:
    bench = Bench("shuffled")
    assert bench.judged()[0] == "fail", "80 of 100 right where 50 are expected"
    for trial in controls_named(bench.plan, "shuffled"):
        bench.set(trial, 0.5, matrix=((26, 24), (24, 26)))
    outcome, found, details = bench.judged()
    assert outcome == "pass" and "156 held-out cells called right, 150.0 by chance alone" in found
    assert sum(one.value for one in details if one.quantity == "by chance") == 150


@pytest.mark.parametrize("control", ["logistic", "knn"])
def test_cheaper_ways_to_labels_are_yardsticks(control: str) -> None:
    bench = Bench(control)
    assert bench.judged()[0] == "pass", "equal is a tie"
    for trial, recall in zip(controls_named(bench.plan, control), (0.9, 0.88, 0.91), strict=True):
        bench.set(trial, recall)
    outcome, found, _ = bench.judged()
    assert outcome == "fail" and "9.7 points lower in the base trial (standard error 0.9, 3 replicates)" in found


def test_a_class_that_the_reference_lacks_is_met_as_its_cells_were() -> None:
    plan = controlled(["novel"], TWO_BY_TWO, replicates=1)
    results, predictions = {}, {}
    (base,) = controls_named(plan, "base")
    results[base.key] = some_result(key=base.key)
    for trial in controls_named(plan, "novel"):
        # Of four cells of the removed class, which stand behind two of the query's, three are called the first class.
        classes = ["first", "second"]
        query = [[2, 0], [0, 0], [3, 1]]
        results[trial.key] = some_result(
            key=trial.key, classes=classes, truth_classes=[*classes, trial.trial.removed], confusion={"query": query}
        )
        doubt = np.array([0.1, 0.5, 0.4, 0.6, 0.7, 0.8], dtype=np.float32)
        predictions[trial.key] = Predictions(np.zeros((4, 2)), np.zeros(6, np.uint16), 1 - doubt, np.array([0]))
    removed = [trial.trial.removed for trial in controls_named(plan, "novel")]
    (one,) = judge_controls(plan.controls, results, {}, predictions.__getitem__, with_self())
    assert one.outcome == "finished" and removed == ["Dendritic"]
    assert f"{removed[0]} is called first 75%, second 25% (AUROC 0.88)" in one.found
    assert [detail.quantity for detail in one.details] == [f"AUROC of 1 - confidence for {name}" for name in removed]


@pytest.mark.parametrize("control", ["none", "self"])
def test_some_controls_only_measure(control: str) -> None:
    bench = Bench(control, replicates=1)
    bench.set(controls_named(bench.plan, control)[0], 0.75)
    outcome, found, _ = bench.judged()
    assert outcome == "finished" and "5.0 points higher in the base trial (not known how certain, 1 replicate" in found


def test_what_is_missing_or_failed_is_not_run_and_says_why() -> None:
    bench = Bench("repeat")
    key = controls_named(bench.plan, "repeat")[0].key
    del bench.results[key]
    outcome, found, details = bench.judged()
    assert (outcome, details) == ("not run", ()) and found.startswith("1 of its 6 trials")
    bench.failures[key] = "out of memory"
    assert "out of memory" in bench.judged()[1]


def test_every_number_is_in_a_table() -> None:
    bench = Bench("repeat")
    tables = control_frames(
        judge_controls(bench.plan.controls, bench.results, {}, bench.predictions.__getitem__, with_self())
    )
    assert tables["controls"].columns.tolist() == ["control", "outcome", "expected", "found"]
    details = tables["control_details"]
    assert len(details) == 3 and set(details["trial_key"]) == {
        trial.key for trial in controls_named(bench.plan, "repeat")
    }
    assert control_frames(())["controls"].empty


def test_logistic_regression_learns_real_cells_and_not_shuffled_ones() -> None:
    """On real cells it recalls most held-out ones; judged as if its labels were shuffled it fails, as it must."""
    bench = Bench("shuffled", replicates=1)
    (trial,) = controls_named(controlled(["logistic"], replicates=1), "logistic")
    result, found = fit_logistic(trial, pbmc()["asis"], 3)
    assert result.key == trial.key and result.metrics["heldout/accuracy"] > 0.7
    assert found.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (
        measure(found.probabilities, pbmc()["none"], split_cells(pbmc()["none"], 0, 3, 128)).metrics == result.metrics
    )
    (shuffled,) = controls_named(bench.plan, "shuffled")
    bench.results[shuffled.key] = replace(result, key=shuffled.key)
    assert bench.judged()[0] == "fail"
    cells = replace(pbmc()["asis"], labels=shuffled.condition.take(pbmc()["asis"]).labels)
    bench.results[shuffled.key] = replace(fit_logistic(trial, cells, 3)[0], key=shuffled.key)
    assert bench.judged()[0] == "pass"
