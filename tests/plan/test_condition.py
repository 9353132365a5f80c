"""Conditions: labels that are shuffled, and draws of query cells."""

from dataclasses import replace

import numpy as np
import pytest

from study.cells.sources import query_names
from study.errors import InputError
from study.plan.condition import Condition
from study.plan.tree import plan_study
from tests.made import pbmc, planned, study_of


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


ON_QUERY = "outcomes=[query/recall,heldout/recall]"


def test_an_outcome_on_query_cells_needs_their_labels_in_every_condition() -> None:
    factors = "{query: {levels: [asis, shallow]}, query_cells: {levels: [2, 5]}}"
    assert planned(factors, ON_QUERY).trials
    whole = pbmc()
    unknown = {**whole, "shallow": replace(whole["shallow"], truth=np.full_like(whole["shallow"].truth, -1))}
    late = whole["asis"].truth.copy()
    late[:2] = -1  # of the first two cells alone
    code = len(whole["asis"].classes)
    foreign = {"truth": np.full_like(late, code), "truth_classes": (*whole["asis"].classes, "not in the reference")}
    config = study_of(factors, ON_QUERY)
    for cells, words in (
        (unknown, r"query/recall needs .*data.truth_key=bulk_labels.*'shallow with 2 cells', 'shallow with 5 cells'\."),
        ({**whole, "asis": replace(whole["asis"], truth=late)}, "none: 'asis with 2 cells'. "),
        ({**whole, "asis": replace(whole["asis"], **foreign)}, "'asis with 2 cells', 'asis with 5 cells'"),
    ):
        with pytest.raises(InputError, match=words):
            plan_study(config, cells, query_names(config.data))
        assert plan_study(study_of(factors), cells, query_names(config.data)).trials, "other outcomes are measured"
    with pytest.raises(InputError, match=r"'none with 0 cells'.*leave them out of space.factors"):
        planned("{query: {levels: [asis, none]}}", ON_QUERY)


def test_which_cells_a_draw_takes_is_known_without_taking_them() -> None:
    whole = pbmc()
    of_draw = set(Condition("asis", 30, draw=1).take(whole["asis"]).names[-30:])
    names = whole["asis"].names[whole["asis"].n_reference :]
    truth = np.where([name in of_draw for name in names], -1, whole["asis"].truth).astype(np.int32)
    config = study_of("{query_draw: {levels: [1, 2]}}", ON_QUERY, "query_cells=30")
    with pytest.raises(InputError, match="none: 'asis with 30 cells'"):
        plan_study(config, {**whole, "asis": replace(whole["asis"], truth=truth)}, query_names(config.data))
