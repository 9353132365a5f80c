"""Conditions: labels that are shuffled, and draws of query cells."""

import numpy as np
import pytest

from study.errors import InputError
from study.plan.condition import Condition
from tests.made import pbmc, planned


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
