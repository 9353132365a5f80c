"""Trials of random designs and of controls: what they are, what they share with the table, and what is refused."""

import numpy as np
import pytest

from study.cells.sources import query_names
from study.config.values import Level
from study.errors import InputError
from study.plan.trials import controls_of, trials_of
from tests.made import TWO_BY_TWO, controlled, controls_named, keys, pbmc, planned, study_of

ALL = ["none", "self", "surgery", "shuffled", "repeat", "logistic"]


def test_the_table_and_its_keys_are_the_same_with_controls_and_without() -> None:
    plain, made = planned(TWO_BY_TWO), controlled(ALL)
    assert keys(plain) == keys(made)
    assert not plain.controls and plain.stages == planned(TWO_BY_TWO, controls=[]).stages
    assert {stage.key for stage in plain.stages} < {stage.key for stage in made.stages}
    assert set(made.by_key) < set(made.all_by_key)


def test_the_base_trial_has_the_first_level_of_each_factor() -> None:
    made = controlled(["repeat"], replicates=2)
    assert [trial.key for trial in controls_named(made, "base")] == [made.trials[0].key, made.trials[4].key]
    drawn = "{query: {levels: [asis, shallow]}, scvi.dropout_rate: {type: uniform, low: 0.2, high: 0.5}}"
    config = study_of(drawn, design="random", points=3, replicates=1, controls=["none"])
    base = controls_of(config, query_names(config.data))[0]
    assert (base.query, base.settings.scvi.dropout_rate) == ("asis", 0.1), "what is drawn has no first level"


def test_each_control_changes_one_thing_in_every_replicate() -> None:
    made = controlled(ALL, "{query: {levels: [asis, shallow]}, query_cells: {levels: [30, all]}}", replicates=2)
    base = controls_named(made, "base")
    assert [(t.condition.query, t.condition.n_cells) for t in controls_named(made, "none")] == [("none", 0)] * 2
    assert [(t.condition.query, t.condition.n_cells) for t in controls_named(made, "self")] == [("self", 30)] * 2
    surgery = [(t.condition.query, t.condition.n_cells) for t in controls_named(made, "surgery")]
    assert surgery == [("none", 0), ("asis", 30), ("shallow", 30)] * 2
    assert [t.condition.shuffled for t in controls_named(made, "shuffled")] == [0, 1]
    for again, first in zip(controls_named(made, "repeat"), base, strict=True):
        assert again.settings == first.settings and again.condition == first.condition
        assert {key for key, _ in again.chain}.isdisjoint(key for key, _ in first.chain)
        assert again.steps == first.steps
    assert [t.chain for t in controls_named(made, "logistic")] == [(), ()]


def test_controls_share_what_can_be_shared() -> None:
    made = controlled(["none", "surgery"], replicates=1)
    (none,), (before, asis, shallow) = controls_named(made, "none"), controls_named(made, "surgery")
    assert before.key == none.key
    assert asis.chain[1] == shallow.chain[1] == none.chain[1], "the query is mapped onto the model without a query"
    kinds = [made.stage_by_key[key].kind for key, _ in asis.chain]
    assert kinds == ["pretraining", "fine-tuning", "surgery"]
    asked = controlled(["none"], "{query: {levels: [asis, none]}, scanvi.max_epochs: {levels: [1, 2]}}", replicates=1)
    assert controls_named(asked, "none")[0].key in asked.by_key, "a control may be a trial of the table"


def test_logistic_regression_cannot_depend_on_the_query() -> None:
    one, other = (
        {
            t.key
            for t in controls_named(
                controlled(["logistic"], "{scanvi.max_epochs: {levels: [1, 2]}}", f"query={q}"), "logistic"
            )
        }
        for q in ("asis", "shallow")
    )
    assert one == other and len(one) == 3


def test_neighbours_are_asked_in_the_pretraining_of_the_base_trial() -> None:
    made = controlled(["knn"], replicates=2)
    for near, base in zip(controls_named(made, "knn"), controls_named(made, "base"), strict=True):
        assert near.chain == base.chain[:1] and near.key != base.key
        assert near.key in made.stage_by_key[near.chain[0][0]].trials.values()
    assert len(made.stages) == len(planned(TWO_BY_TWO, replicates=2).stages), "nothing more is trained"
    left = made.missing(set(keys(made)), set())
    assert [(stage.kind, len(stage.trials), len(stage.keep)) for stage in left] == [("pretraining", 1, 0)] * 2


def test_cheaper_ways_stand_beside_every_table_unless_told_otherwise() -> None:
    assert {trial.control for trial in planned(TWO_BY_TWO, controls=None).controls} == {"base", "logistic", "knn"}
    assert planned(TWO_BY_TWO, controls=[]).controls == ()


def test_each_class_of_some_size_is_removed_in_turn() -> None:
    made = controlled(["novel"], replicates=1)
    cells = pbmc()["asis"]
    sizes = dict(zip(cells.classes, np.bincount(cells.labels).tolist(), strict=True))
    removed = {trial.trial.removed: trial for trial in controls_named(made, "novel")}
    assert set(removed) == {name for name, size in sizes.items() if size >= 50}
    for name, trial in removed.items():
        mine = trial.condition.take(cells)
        assert name not in mine.classes and mine.n_query == cells.n_query + sizes[name]
        assert (
            mine.names[-sizes[name] :].tolist()
            == cells.names[: cells.n_reference][cells.labels == cells.classes.index(name)].tolist()
        )


def test_missing_controls_are_trained_and_a_logistic_regression_needs_no_stage() -> None:
    made = controlled(["repeat", "logistic"], replicates=1)
    left = made.missing(set(keys(made)), set())
    assert [stage.kind for stage in left] == ["pretraining", "fine-tuning"]
    assert left[1].trials == {1: controls_named(made, "repeat")[0].key}
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


def drawn(factor: str, points: int, name: str = "scvi.dropout_rate") -> list[Level]:
    config = study_of(f"{{{name}: {factor}}}", design="random", points=points, replicates=1)
    return [dict(trial.levels)[name] for trial in trials_of(config, query_names(config.data))]


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        ("{type: uniform, low: 0.1, high: 0.10000000000000002}", "differ by more than rounding"),
        ("{type: loguniform, low: 0.1, high: 0.10000000000000002}", "differ by more than rounding"),
        ("{type: uniform, low: 0, high: 5.0e-324}", "differ by more than rounding"),
        ("{type: uniform, low: 0.1, high: 0.1}", "low < high, found low: 0.1 and high: 0.1"),
        ("{type: uniform, low: -1.0e+308, high: 1.0e+308}", "too wide"),
        ("{type: uniform, low: 0.2, high: 1.5}", r"less than 1, found 1.49.* Its range is uniform from 0.2 to 1.5"),
        ("{type: randint, low: 2, high: 5}", "less than 1, found 2. Its range is randint from 2 to 5: change it"),
        ("{low: 0, high: 0.5}", "type: is missing"),
        ("{type: uniform, low: 0, high: 0.5, levels: [0, 0.5]}", "here are both"),
    ],
)
def test_a_range_that_nothing_can_be_drawn_from_is_refused(factor: str, words: str) -> None:
    """Of ends that are next to each other a random design would have drawn for ever."""
    with pytest.raises(InputError, match=words):
        drawn(factor, 3)


@pytest.mark.parametrize(
    ("name", "factor", "words"),
    [
        ("scvi.n_latent", "{type: uniform, low: 2, high: 5}", "whole number, found 2.0.*'type: randint'"),
        ("scvi.norm", "{type: randint, low: 0, high: 3}", "found 0.*'levels'"),
        ("query", "{type: randint, low: 0, high: 3}", "'query' is named, not drawn from a range: give it 'levels'"),
    ],
)
def test_a_setting_that_is_no_such_number_is_not_drawn_from_a_range(name: str, factor: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        drawn(factor, 3, name)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("scvi.dropout_rate", "{type: uniform, low: 0, high: 1}"),
        ("scvi.dropout_rate", "{type: uniform, low: 0.1, high: 0.100001}"),
        ("scanvi.classification_ratio", "{type: loguniform, low: 1.0e-300, high: 1.0e+300}"),
        ("scanvi.classification_ratio", "{type: loguniform, low: 1.0e+300, high: 1.000002e+300}"),
        ("scanvi.classification_ratio", "{type: uniform, low: 0, high: 1.0e-299}"),
    ],
)
def test_what_a_range_holds_is_drawn_each_once(name: str, factor: str) -> None:
    levels = drawn(factor, 2000, name)
    assert len(set(levels)) == len(levels) == 2000


def test_a_query_is_named_as_yaml_writes_it() -> None:
    with pytest.raises(InputError, match=r"'True' is no query.*Quote a name such as 'yes'.*Queries are: asis"):
        planned("{query: {levels: [yes, no]}}")
    with pytest.raises(InputError, match=r"at least 2 queries, found \['asis'\]"):
        planned("{query: {levels: all}}", "~data.queries.shallow", "~data.queries.skewed")
