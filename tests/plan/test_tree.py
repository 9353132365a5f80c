"""The stage tree: what is shared, what a key depends on, what is missing, and where chance enters."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from study.cells.sources import query_names
from study.config.values import dump
from study.errors import InputError
from study.plan.factors import Factor, factors_of, strata
from study.plan.tree import plan_study
from study.plan.trials import replicates_of, trials_of
from tests.made import keys, pbmc, planned, study_of


def test_the_default_study_by_hand() -> None:
    made = planned()
    assert len(made.trials) == 96
    assert len(made.stages) == 12 + 48, "2 queries x 2 sizes x 3 replicates; times 2 classifiers x 2 samplings"
    assert made.epochs_separate == 48 * (40 + 15) + 48 * (40 + 30)
    assert made.epochs_shared == 12 * 40 + 48 * 30


def test_the_role_that_studies_of_before_wrote_is_read_and_changes_no_stratum() -> None:
    config = study_of("{query: {levels: [asis, shallow], role: data}, scvi.n_latent: {levels: [5, 6], role: null}}")
    factors = factors_of(config.space, ("asis", "shallow"))
    assert [(factor.name, factor.role) for factor in factors] == [("query", "data"), ("scvi.n_latent", "parameter")]
    assert "role" not in str(dump(config))


def test_points_of_a_random_design_differ() -> None:
    """Integers and levels come again and again: what comes twice is drawn again, and what differs stays as it was."""
    factors = "{scanvi.max_epochs: {type: randint, low: 1, high: 4}, query: {levels: [asis, shallow, none]}}"
    every = [trial.point for trial in planned(factors, design="random", points=9, replicates=1).trials]
    assert len(set(every)) == 9, "all combinations there are"
    some = [trial.point for trial in planned(factors, design="random", points=4, replicates=1).trials]
    assert every[:4] == some


def test_a_key_depends_on_what_can_change_the_result_and_on_nothing_else() -> None:
    small = "{scanvi.max_epochs: {levels: [1, 2]}}"
    base = keys(planned(small))
    for change in (
        "scvi.n_latent=11",
        "scvi.max_epochs=41",
        "scanvi.classification_ratio=51",
        "query_cells=50",
        "query=shallow",
        "scvi.norm=layer",
        "resources.cpus=2",
    ):
        assert not set(base) & set(keys(planned(small, change))), change
    assert not set(base) & set(keys(planned(small, folds=4)))
    for change in ("name=other", "root=elsewhere", "scanvi.surgery_epochs=3", "tracking=server", "query=asis"):
        assert base == keys(planned(small, change)), change
    assert base == keys(planned(small, replicates=5))[: len(base)], "more replicates keep the first ones"


def test_other_counts_are_another_trial() -> None:
    config = study_of("{scanvi.max_epochs: {levels: [1, 2]}}")
    cells = pbmc()
    counts = cells["asis"].counts.copy()
    counts.data = counts.data.copy()
    counts.data[0] += 1
    names = query_names(config.data)
    other = plan_study(config, {**cells, "asis": replace(cells["asis"], counts=counts)}, names)
    renamed = replace(cells["asis"], names=np.array([f"other{i}" for i in range(cells["asis"].counts.shape[0])]))
    assert not set(keys(plan_study(config, cells, names))) & set(keys(other))
    assert keys(plan_study(config, cells, names)) == keys(plan_study(config, {**cells, "asis": renamed}, names))


def test_whole_replicates_come_first_and_parents_before_children() -> None:
    made = planned()
    assert [s.replicate.index for s in made.stages] == sorted(s.replicate.index for s in made.stages)
    seen: set[str] = set()
    for stage in made.stages:
        assert stage.parent is None or stage.parent in seen
        seen.add(stage.key)


def test_only_what_is_missing_is_trained() -> None:
    made = planned()
    assert made.missing(set(), set()) == made.stages
    assert made.missing(set(keys(made)), set()) == ()
    one = made.trials[5]
    rest = set(keys(made)) - {one.key}
    kinds = [(s.kind, s.epochs) for s in made.missing(rest, set())]
    assert kinds == [("pretraining", (40,)), ("fine-tuning", (one.chain[-1][1],))]
    kept = {one.chain[0]}
    assert [s.kind for s in made.missing(rest, kept)] == ["fine-tuning"], "the pretraining is still there"


def test_steps_are_matched() -> None:
    factors = "{query_cells: {levels: [30, all]}, scanvi.max_epochs: {levels: [15, 30]}}"
    made = planned(factors, "budget=steps")
    steps = {(t.levels["query_cells"], t.levels["scanvi.max_epochs"]): t.steps for t in made.trials}
    for epochs in (15, 30):
        small, large = steps[30, epochs], steps["all", epochs]
        assert abs(small - large) <= 5, "within the steps of one epoch"
    unmatched = planned(factors)
    steps = {(t.levels["query_cells"], t.levels["scanvi.max_epochs"]): t.steps for t in unmatched.trials}
    assert steps["all", 15] > 2 * steps[30, 15]


def test_the_same_trial_twice_is_refused() -> None:
    with pytest.raises(InputError, match="431/all"):
        planned("{query_cells: {levels: [431, all]}}")


def test_more_cells_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="has 431"):
        planned("{query_cells: {levels: [30, 432]}}")


def test_a_query_that_is_none_is_named_with_its_neighbour() -> None:
    with pytest.raises(InputError, match="Did you mean 'shallow'"):
        planned("{query: {levels: [asis, shalow]}}")


@pytest.mark.parametrize(
    ("sizes", "said"),
    [(", query_cells: {levels: [30, all]}", "Compare the queries at 30 cells"), ("", "or add match_size twins")],
)
def test_a_size_that_is_nested_in_the_query_can_be_told_apart_where_all_reach_it(sizes: str, said: str) -> None:
    config = study_of("{query: {levels: [asis, shallow]}" + sizes + "}")
    uneven = {**pbmc(), "shallow": pbmc()["shallow"].first(200)}
    (note,) = (one for one in plan_study(config, uneven, query_names(config.data)).notes if "nested" in one)
    assert "asis: 431, shallow: 200" in note
    assert said in note


def test_notes_name_what_is_confounded() -> None:
    assert any("optimiser steps" in note for note in planned().notes)
    same = planned("{scanvi.n_samples_per_label: {levels: [100, 1000, all]}}")
    assert any("100, 1000, all draw the same cells" in note for note in same.notes)
    assert any("KL weight" in note for note in planned("{scvi.max_epochs: {levels: [10, 400]}}").notes)


def test_reference_alone_has_no_query() -> None:
    made = planned("{query: {levels: [asis, none]}, scanvi.max_epochs: {levels: [1, 2]}}")
    assert {(t.condition.query, t.condition.n_cells) for t in made.trials} == {("asis", 431), ("none", 0)}


def test_surgery_shares_the_reference_between_queries() -> None:
    made = planned("{query: {levels: [asis, shallow]}}", "scanvi.protocol=surgery", replicates=1)
    assert [stage.kind for stage in made.stages] == ["pretraining", "fine-tuning", "surgery", "surgery"]


@pytest.mark.parametrize(
    ("names", "protocol", "expected"),
    [
        (["query", "scanvi.max_epochs"], "joint", ["pretraining", "fine-tuning snapshots"]),
        (["scvi.norm", "scvi.max_epochs", "scanvi.linear_classifier"], "joint",
         ["pretraining", "pretraining snapshots", "fine-tuning"]),
        (["query", "scanvi.linear_classifier"], "surgery", ["fine-tuning", "surgery"]),
    ],
)  # fmt: skip
def test_strata_follow_the_tree(names: Sequence[str], protocol: str, expected: list[str]) -> None:
    factors = [Factor(name, (1, 2), "data" if name == "query" else "parameter") for name in names]
    assert [stratum.name for stratum in strata(factors, protocol)] == expected


def test_replicates_rotate_folds_and_may_be_crossed() -> None:
    plain = replicates_of(study_of(replicates=4).space)
    assert [(r.seed, r.fold) for r in plain] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    crossed = replicates_of(study_of(replicates={"seeds": 2, "folds": 2}).space)
    assert [(r.seed, r.fold) for r in crossed] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_random_design_is_the_same_each_time_and_in_every_replicate() -> None:
    factors = "{query: {levels: [asis, shallow]}, scvi.dropout_rate: {type: uniform, low: 0.0, high: 0.5}, "
    factors += "scvi.n_latent: {type: randint, low: 4, high: 20}, "
    factors += "scanvi.classification_ratio: {type: loguniform, low: 1, high: 100}}"
    config = study_of(factors, design="random", points=5, replicates=2)
    made = factors_of(config.space, query_names(config.data))
    kinds = {factor.name: factor.domain.type for factor in made if factor.domain}
    assert kinds["scanvi.classification_ratio"] == "loguniform"
    assert sorted(kinds.values()) == ["loguniform", "randint", "uniform"]
    drawn = [trial.levels for trial in trials_of(config, query_names(config.data))]
    assert drawn[:5] == drawn[5:]
    assert len(set(drawn)) == 5
    assert drawn == [trial.levels for trial in trials_of(config, query_names(config.data))]


def test_stages_are_alike_that_differ_in_replicate_or_in_numbers() -> None:
    factors = (
        "{scvi.dropout_rate: {levels: [0.0, 0.1, 0.3]}, scanvi.linear_classifier: {levels: [true, false]}, "
        "scanvi.n_samples_per_label: {levels: [5, all]}, query: {levels: [asis, shallow]}}"
    )
    stages = planned(factors, "query_cells=30", replicates=2).stages
    found = {kind: [one.likeness for one in stages if one.kind == kind] for kind in ("pretraining", "fine-tuning")}
    # With dropout or without, for each query; and with each classifier.
    assert {kind: (len(each), len(set(each))) for kind, each in found.items()} == {
        "pretraining": (12, 4),
        "fine-tuning": (48, 8),
    }
