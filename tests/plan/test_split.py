"""Held-out cells: stratified, rotating, never trained on; and no minibatch of one cell."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from study.plan.split import held_out, labelled_per_epoch, split_cells
from tests.made import cells_of

labellings = st.lists(st.integers(0, 4), min_size=4, max_size=80).map(
    lambda codes: np.unique(codes, return_inverse=True)[1]
)


@given(labellings, st.integers(2, 5), st.integers(0, 3))
def test_every_cell_is_held_out_once_per_random_split(labels: np.ndarray, folds: int, turn: int) -> None:
    out = np.array([held_out(labels.astype(np.int32), turn * folds + part, folds) for part in range(folds)])
    alone = np.bincount(labels)[labels] == 1
    assert (out.sum(axis=0) == np.where(alone, 0, 1)).all()
    for code in np.unique(labels):
        sizes = out[:, labels == code].sum(axis=1)
        assert sizes.max() - sizes.min() <= 1, "a class is dealt evenly"
        assert (sizes < (labels == code).sum()).all(), "every fold leaves some cells to learn from"


def test_a_later_round_splits_afresh() -> None:
    labels = np.repeat(np.arange(3, dtype=np.int32), 20)
    assert not np.array_equal(held_out(labels, 0, 3), held_out(labels, 3, 3))
    assert np.array_equal(held_out(labels, 4, 3), held_out(labels, 4, 3))


@given(labellings, st.integers(0, 40), st.integers(2, 16))
def test_rows_are_divided_and_no_batch_is_of_one_cell(labels: np.ndarray, n_query: int, batch_size: int) -> None:
    some = cells_of(labels.tolist(), n_query)
    parts = split_cells(some, 1, 3, batch_size)
    together = np.concatenate([parts.train, parts.held_out, parts.left_out])
    assert sorted(together) == list(range(some.counts.shape[0]))
    assert parts.train.size % batch_size != 1
    assert parts.left_out.size <= 1
    assert not set(parts.held_out) & set(parts.labelled)


def test_copies_of_held_out_cells_do_not_come_back_through_the_query() -> None:
    some = cells_of([0, 1] * 10, 20)
    copies = replace(some, origin=np.arange(20))
    parts = split_cells(copies, 0, 2, 64)
    assert set(parts.left_out - 20) == set(parts.held_out)


def test_labelled_cells_of_an_epoch() -> None:
    some = cells_of([0] * 9 + [1] * 3, 5)
    parts = split_cells(some, 0, 3, 128)
    assert labelled_per_epoch(some, parts, "all") == {"c0": 6, "c1": 2}
    assert labelled_per_epoch(some, parts, 4) == {"c0": 4, "c1": 2}
