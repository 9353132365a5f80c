"""Controls beside the table: which trials they are, how they are judged, and what the audit says before launch."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from study.cells.prepared import Cells
from study.cells.sources import query_names
from study.config.composition import compose
from study.errors import InputError
from study.plan.condition import Condition
from study.plan.split import split_cells
from study.plan.tree import Plan, PlannedTrial, plan_study
from study.plan.trials import controls_of
from study.trials.logistic import fit_logistic
from study.trials.metrics import measure
from study.trials.probes import energy_distance
from study.trials.record import Predictions, Result
from study.trials.tables import probe_frame
from study.verdict.afterwards import mechanism_frame
from study.verdict.controls import (
    ControlResult,
    Detail,
    allowed_drift,
    control_frames,
    judge_controls,
    matched_by_chance,
)
from tests.made import keys, pbmc, planned, some_result, study_of
from tests.scenes import scene

ALL = ["none", "self", "surgery", "shuffled", "repeat", "logistic"]
FACTORS = "{query: {levels: [asis, shallow]}, scanvi.max_epochs: {levels: [1, 2]}}"


def with_self() -> dict[str, Cells]:
    """A stand-in of the right size: planning a pseudo-query looks at nothing else."""
    return {**pbmc(), "self": pbmc()["shallow"]}


def controlled(controls: list[str], factors: str = FACTORS, *overrides: str, **space: object) -> Plan:
    config = study_of(factors, *overrides, controls=controls, **space)
    return plan_study(config, with_self(), query_names(config.data))


def of(made: Plan, control: str) -> list[PlannedTrial]:
    return [trial for trial in made.controls if trial.control == control]


def test_the_table_and_its_keys_are_the_same_with_controls_and_without() -> None:
    plain, made = planned(FACTORS), controlled(ALL)
    assert keys(plain) == keys(made)
    assert not plain.controls and plain.stages == planned(FACTORS, controls=[]).stages
    assert {stage.key for stage in plain.stages} < {stage.key for stage in made.stages}
    assert set(made.by_key) < set(made.all_by_key)


def test_the_base_trial_has_the_first_level_of_each_factor() -> None:
    made = controlled(["repeat"], replicates=2)
    assert [trial.key for trial in of(made, "base")] == [made.trials[0].key, made.trials[4].key]
    drawn = "{query: {levels: [asis, shallow]}, scvi.dropout_rate: {type: uniform, low: 0.2, high: 0.5}}"
    config = study_of(drawn, design="random", points=3, replicates=1, controls=["none"])
    base = controls_of(config, query_names(config.data))[0]
    assert (base.query, base.settings.scvi.dropout_rate) == ("asis", 0.1), "what is drawn has no first level"


def test_each_control_changes_one_thing_in_every_replicate() -> None:
    made = controlled(ALL, "{query: {levels: [asis, shallow]}, query_cells: {levels: [30, all]}}", replicates=2)
    base = of(made, "base")
    assert [(t.condition.query, t.condition.n_cells) for t in of(made, "none")] == [("none", 0)] * 2
    assert [(t.condition.query, t.condition.n_cells) for t in of(made, "self")] == [("self", 30)] * 2
    surgery = [(t.condition.query, t.condition.n_cells) for t in of(made, "surgery")]
    assert surgery == [("none", 0), ("asis", 30), ("shallow", 30)] * 2
    assert [t.condition.shuffled for t in of(made, "shuffled")] == [0, 1]
    for again, first in zip(of(made, "repeat"), base, strict=True):
        assert again.settings == first.settings and again.condition == first.condition
        assert {key for key, _ in again.chain}.isdisjoint(key for key, _ in first.chain)
        assert again.steps == first.steps
    assert [t.chain for t in of(made, "logistic")] == [(), ()]


def test_controls_share_what_can_be_shared() -> None:
    made = controlled(["none", "surgery"], replicates=1)
    (none,), (before, asis, shallow) = of(made, "none"), of(made, "surgery")
    assert before.key == none.key
    assert asis.chain[1] == shallow.chain[1] == none.chain[1], "the query is mapped onto the model without a query"
    kinds = [made.stage_by_key[key].kind for key, _ in asis.chain]
    assert kinds == ["pretraining", "fine-tuning", "surgery"]
    asked = controlled(["none"], "{query: {levels: [asis, none]}, scanvi.max_epochs: {levels: [1, 2]}}", replicates=1)
    assert of(asked, "none")[0].key in asked.by_key, "a control may be a trial of the table"


def test_logistic_regression_cannot_depend_on_the_query() -> None:
    one, other = (
        {t.key for t in of(controlled(["logistic"], "{scanvi.max_epochs: {levels: [1, 2]}}", f"query={q}"), "logistic")}
        for q in ("asis", "shallow")
    )
    assert one == other and len(one) == 3


def test_missing_controls_are_trained_and_a_logistic_regression_needs_no_stage() -> None:
    made = controlled(["repeat", "logistic"], replicates=1)
    left = made.missing(set(keys(made)), set())
    assert [stage.kind for stage in left] == ["pretraining", "fine-tuning"]
    assert left[1].trials == {1: of(made, "repeat")[0].key}
    assert made.missing(set(made.all_by_key), set()) == ()


@pytest.mark.parametrize(
    ("controls", "overrides", "words"),
    [
        (["none", "none"], [], "duplicate"),
        (["non"], [], "controls"),
        (["self"], ["query=none"], "'self' imitates the size"),
    ],
)
def test_bad_controls_are_refused(controls: list[str], overrides: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        controlled(controls, "{scanvi.max_epochs: {levels: [1, 2]}}", *overrides)


def test_shuffled_labels_are_the_same_labels_elsewhere() -> None:
    cells = pbmc()["asis"]
    first, second = (Condition("asis", 30, shuffled=replicate).take(cells) for replicate in (0, 1))
    for shuffled in (first, second):
        assert np.array_equal(np.bincount(shuffled.labels), np.bincount(cells.labels))
        assert (shuffled.labels == cells.labels).mean() < 0.5
    assert not np.array_equal(first.labels, second.labels)
    assert len({cells.first(30).digest(), first.digest(), second.digest()}) == 3
    assert np.shares_memory(first.counts.data, cells.counts.data)


def test_a_draw_takes_other_cells_of_the_same_query() -> None:
    cells = pbmc()["asis"]
    assert Condition("asis", 30).take(cells).digest() == cells.first(30).digest()
    one, other = (Condition("asis", 30, draw=draw).take(cells) for draw in (1, 2))
    assert one.n_query == 30 and len(set(one.names[one.n_reference :]) & set(other.names[other.n_reference :])) < 10
    for drawn in (one, other):
        assert np.array_equal(drawn.names[: drawn.n_reference], cells.names[: cells.n_reference])
        place = {name: at for at, name in enumerate(cells.names)}
        rows = [place[name] for name in drawn.names]
        assert np.array_equal(drawn.counts.toarray(), cells.counts[rows].toarray())
        assert [drawn.batches[code] for code in drawn.batch] == [cells.batches[cells.batch[row]] for row in rows]
        truth = [drawn.truth_classes[code] for code in drawn.truth]
        assert truth == [cells.truth_classes[cells.truth[row - cells.n_reference]] for row in rows[-30:]]
    assert Condition("asis", 431, draw=3).take(cells) is cells, "all of them are no draw"


def test_a_draw_is_a_factor_and_no_cause() -> None:
    made = planned("{query_draw: {levels: [0, 1, 2]}, scanvi.max_epochs: {levels: [1, 2]}}", "query_cells=30")
    assert len(made.stages) == 3 * (3 + 3)
    assert made.factors[0].role == "data"
    assert any("luck of the draw" in note for note in made.notes)
    with pytest.raises(InputError, match="same trial"):
        planned("{query_draw: {levels: [0, 1]}, scanvi.max_epochs: {levels: [1, 2]}}")


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
        self.plan = controlled([control], FACTORS, *overrides, replicates=replicates)
        self.control = control
        self.results: dict[str, Result] = {}
        self.predictions: dict[str, Predictions] = {}
        self.failures: dict[str, str] = {}
        for trial in (*of(self.plan, "base"), *of(self.plan, control)):
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
    bench.set(of(bench.plan, "repeat")[1], 0.8, shift=1e-7)
    outcome, found, details = bench.judged()
    assert outcome == "fail" and "does not repeat" in found
    assert [one.value > 0 for one in details] == [False, True, False]


def test_surgery_fails_where_the_reference_moves_and_nothing_allows_it() -> None:
    bench = Bench("surgery")
    assert bench.judged()[0] == "pass"
    moved = [trial for trial in of(bench.plan, "surgery") if trial.condition.n_cells][1]
    bench.set(moved, 0.8, shift=0.004)
    assert bench.judged()[0] == "fail"
    leaky = Bench("surgery", "scanvi.linear_classifier=false")
    moved = [trial for trial in of(leaky.plan, "surgery") if trial.condition.n_cells][1]
    leaky.set(moved, 0.8, shift=0.004)
    assert leaky.judged()[0] == "pass" and "up to 0.01" in leaky.judged()[1]
    leaky.set(moved, 0.8, shift=0.02)
    assert leaky.judged()[0] == "fail"


def test_shuffled_fails_where_labels_are_still_found() -> None:
    bench = Bench("shuffled")
    assert bench.judged()[0] == "fail", "80 of 100 right where 50 are expected"
    for trial in of(bench.plan, "shuffled"):
        bench.set(trial, 0.5, matrix=((26, 24), (24, 26)))
    outcome, found, details = bench.judged()
    assert outcome == "pass" and "156 held-out cells called right, 150.0 by chance alone" in found
    assert sum(one.value for one in details if one.quantity == "by chance") == 150


def test_logistic_regression_is_a_yardstick() -> None:
    bench = Bench("logistic")
    assert bench.judged()[0] == "pass", "equal is a tie"
    for trial, recall in zip(of(bench.plan, "logistic"), (0.9, 0.88, 0.91), strict=True):
        bench.set(trial, recall)
    outcome, found, _ = bench.judged()
    assert outcome == "fail" and "9.7 points lower in the base trial (standard error 0.9, 3 replicates)" in found


@pytest.mark.parametrize("control", ["none", "self"])
def test_some_controls_only_measure(control: str) -> None:
    bench = Bench(control, replicates=1)
    bench.set(of(bench.plan, control)[0], 0.75)
    outcome, found, _ = bench.judged()
    assert outcome == "finished" and "5.0 points higher in the base trial (not known how certain, 1 replicate" in found


def test_what_is_missing_or_failed_is_not_run_and_says_why() -> None:
    bench = Bench("repeat")
    key = of(bench.plan, "repeat")[0].key
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
    assert len(details) == 3 and set(details["trial_key"]) == {trial.key for trial in of(bench.plan, "repeat")}
    assert control_frames(())["controls"].empty


def test_logistic_regression_learns_real_cells_and_not_shuffled_ones() -> None:
    """On real cells it recalls most held-out ones; judged as if its labels were shuffled it fails, as it must."""
    bench = Bench("shuffled", replicates=1)
    (trial,) = of(controlled(["logistic"], replicates=1), "logistic")
    result, found = fit_logistic(trial, pbmc()["asis"], 3)
    assert result.key == trial.key and result.metrics["heldout/accuracy"] > 0.7
    assert found.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (
        measure(found.probabilities, pbmc()["none"], split_cells(pbmc()["none"], 0, 3, 128)).metrics == result.metrics
    )
    (shuffled,) = of(bench.plan, "shuffled")
    bench.results[shuffled.key] = replace(result, key=shuffled.key)
    assert bench.judged()[0] == "fail"
    cells = replace(pbmc()["asis"], labels=shuffled.condition.take(pbmc()["asis"]).labels)
    bench.results[shuffled.key] = replace(fit_logistic(trial, cells, 3)[0], key=shuffled.key)
    assert bench.judged()[0] == "pass"


def test_energy_distance_is_zero_for_equals_and_grows_with_distance() -> None:
    random = np.random.default_rng(0)
    one, other = (random.normal(size=(400, 5)).astype(np.float32) for _ in range(2))
    assert abs(energy_distance(one, other)) < 0.02
    near, far = (energy_distance(one, other + np.float32(shift)) for shift in (1, 3))
    assert 0.1 < near < far
    assert energy_distance(10 * one, 10 * (other + np.float32(1))) == pytest.approx(near, rel=1e-4), "no unit"


def test_probes_are_a_tidy_table() -> None:
    made = planned(FACTORS, replicates=1)
    key = made.trials[0].key
    values: Mapping[str, object] = {"steps": 4, "draws_per_cell": {"a": 1.5, "b": 2.0}}
    table = probe_frame(made, {key: some_result(key=key, probes=values)})
    found = table[["probe", "class_name", "value"]].to_numpy().tolist()
    assert found == [["steps", "", 4.0], ["draws_per_cell", "a", 1.5], ["draws_per_cell", "b", 2.0]]
    assert set(table["trial_key"]) == {key} and isinstance(table, pd.DataFrame)


def test_what_models_show_is_a_row_per_condition() -> None:
    made = planned(FACTORS, replicates=1)
    values = {"latent_distance": 0.5, "reestimated_heldout_macro_recall": 0.9}
    metrics = {"heldout/macro_recall": 0.8}
    shown = mechanism_frame(made, {k: some_result(key=k, probes=values, metrics=metrics) for k in keys(made)})
    assert shown["condition"].tolist() == ["asis, 431 cells", "shallow, 431 cells"]
    assert shown["distance of the query"].tolist() == [0.5, 0.5]
    assert shown["BatchNorm from the reference alone: held-out points"].tolist() == [10, 10]
    assert "calibration error (ECE)" not in shown, "what no trial recorded is no column"


def test_the_report_shows_controls_and_warns_of_those_that_failed() -> None:
    study = scene(per_class=20, replicates=2)
    broken = ControlResult("repeat", "the same <b>", "fail", "differ by 1e-07 at most")
    page = study.page(controls=(broken, replace(broken, control="none", outcome="finished")))
    assert page.says("Control repeat failed.") and page.says("the same <b>") and not page.says("Control none failed")
    assert study.page().says("None was asked for")


@pytest.mark.parametrize(
    ("factors", "overrides", "words"),
    [
        ("{query: {levels: [asis, none]}, scvi.n_latent: {levels: [4, 5]}}", [], "in the query (asis: 431, none: 0"),
        ("{query_cells: {levels: [30, all]}, scvi.n_latent: {levels: [4, 5]}}", [], "An epoch has 2 to 5 optimiser"),
        ("{query_cells: {levels: [30, all]}, scvi.n_latent: {levels: [4, 5]}}", ["budget=steps"], "between conditions"),
        ("{scanvi.max_epochs: {levels: [10, 400]}}", [], "it ends at 0.03 to 1.00"),
        ("{scvi.n_latent: {levels: [4, 5]}}", [], "Few held-out cells per replicate (CD14+ Monocyte: 15,"),
    ],
)
def test_the_audit_warns_before_launch(factors: str, overrides: list[str], words: str) -> None:
    notes = planned(factors, *overrides).notes
    assert any(words in note for note in notes), notes
    for note in notes:
        assert "`" not in note and note.endswith(".") and note[0].isupper()


def test_the_audit_compares_classes() -> None:
    cells = pbmc()
    asis = cells["asis"]
    truth = np.where(asis.truth == 0, len(asis.classes), asis.truth).astype(np.int32)
    changed = replace(asis, truth=truth, truth_classes=(*asis.classes, "novel"))
    config = study_of("{scvi.n_latent: {levels: [4, 5]}}")
    notes = plan_study(config, {**cells, "asis": changed}, query_names(config.data)).notes
    assert any("lacks 1 of 10 classes ('CD14+ Monocyte')" in note for note in notes)
    assert any("'novel'): they can only be called wrong" in note for note in notes)
