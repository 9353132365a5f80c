"""Trials of controls: which they are, what they share with the table, and that they leave it alone."""

import pytest

from study.cells.sources import query_names
from study.errors import InputError
from study.plan.trials import controls_of
from tests.made import TWO_BY_TWO, controlled, controls_named, keys, planned, study_of

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
