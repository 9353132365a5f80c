"""Which cells a trial trains on, and which are held out.

Held-out cells are labelled reference cells that no stage sees, in any guise: not as labelled cells, not as unlabelled
ones, and not as copies in a pseudo-query. They rotate with the fold and are stratified by class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from study.cells import Cells

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Rows of `Cells.counts`, each in ascending order.

    Attributes
    ----------
    train
        Rows that both stages train on, reference and query.
    held_out
        Reference rows that no stage sees.
    left_out
        One row at most, left out because it would be a minibatch of its own (see `split`), and copies of held-out
        cells in a pseudo-query.
    unlabelled
        Reference rows without a label, among the training rows.
    """

    train: Indices
    held_out: Indices
    left_out: Indices
    n_reference: int
    unlabelled: Indices

    @property
    def reference(self) -> Indices:
        """The reference rows among the training rows."""
        return self.train[self.train < self.n_reference]

    @property
    def labelled(self) -> Indices:
        """Those of them with a label."""
        rows = self.reference
        return rows[~np.isin(rows, self.unlabelled)] if self.unlabelled.size else rows


def held_out(labels: npt.NDArray[np.int32], fold: int, folds: int) -> npt.NDArray[np.bool_]:
    """Mark the reference cells that a fold holds out.

    Each class is dealt to the parts in random order, one class going on where the last one stopped, so that small
    classes spread over the parts. The only cell of a class is never held out: nothing could learn that class.

    Parameters
    ----------
    labels
        Class codes, shape (n_reference,); -1 for cells without a label, which are never held out.
    fold
        Part ``fold % folds`` of random split ``fold // folds``.
    folds
        Number of parts.

    Returns
    -------
    Shape (n_reference,), True where held out.
    """
    generator = np.random.default_rng([fold // folds, folds])
    part = np.full(labels.size, -1)
    dealt = 0
    for code in np.unique(labels[labels >= 0]):
        rows = generator.permutation(np.flatnonzero(labels == code))
        if rows.size > 1:
            part[rows] = (dealt + np.arange(rows.size)) % folds
            dealt += rows.size
    out: npt.NDArray[np.bool_] = part == fold % folds
    return out


def split_cells(cells: Cells, fold: int, folds: int, batch_size: int) -> Split:
    """Divide the cells of a condition into training, held-out and left-out rows.

    A last minibatch of one cell ends training under BatchNorm, so if the training cells leave 1 over the batch size,
    the last one (a query cell, where there are any) is left out: always the same one, for every setting.
    """
    n = cells.n_reference
    out = held_out(cells.labels, fold, folds)
    # A copy of a held-out cell must not come back through the query.
    copied = (cells.origin >= 0) & out[cells.origin]
    train = np.flatnonzero(~np.concatenate([out, copied]))
    left_out = np.flatnonzero(copied) + n
    if train.size % batch_size == 1:
        train, left_out = train[:-1], np.append(left_out, train[-1])
    return Split(train, np.flatnonzero(out), left_out, n, cells.unlabelled)


def query_rows(parts: Split, batch_size: int) -> Indices:
    """Return the query rows that surgery trains on, again without a last minibatch of one cell."""
    rows = parts.train[parts.train >= parts.n_reference]
    return rows[:-1] if rows.size % batch_size == 1 else rows


def labelled_per_epoch(cells: Cells, parts: Split, n_samples_per_label: int | Literal["all"]) -> dict[str, int]:
    """Return how many labelled cells of each class one epoch draws."""
    sizes = np.bincount(cells.labels[parts.labelled], minlength=len(cells.classes))
    drawn = sizes if n_samples_per_label == "all" else np.minimum(sizes, n_samples_per_label)
    return {name: int(count) for name, count in zip(cells.classes, drawn, strict=True)}
