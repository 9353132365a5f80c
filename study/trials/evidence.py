"""What a trial leaves to judge a label by: of each cell that it did not learn from, its best classes and its distance.

Kept of held-out reference cells and of query cells, in half precision: 14 bytes a cell before compression. Trials of
earlier versions have none; of those it is made from what they kept, one class a cell and no distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from study.plan import Indices, Split
from study.trials.record import Predictions

TOP = 3  # classes
NEIGHBOURS = 10
# Known cells that distances are taken to; so it takes seconds also on a large reference.
MOST_KNOWN = 5_000

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Evidence:
    """Of held-out reference cells, then of all query cells.

    Attributes
    ----------
    held_out
        Rows of the held-out reference cells, shape (n_held_out,).
    labels
        Codes of the most probable classes, best first, shape (n_held_out + n_query, n_top), uint16.
    probabilities
        Theirs, float16.
    distance
        How far a cell lies from labelled training cells (see `distances`), shape (n_held_out + n_query,), float16;
        empty where it is not known.
    """

    held_out: Indices
    labels: npt.NDArray[np.uint16]
    probabilities: npt.NDArray[np.float16]
    distance: npt.NDArray[np.float16]

    @classmethod
    def of(cls, probabilities: Floats, latent: Floats, labels: npt.NDArray[np.int32], parts: Split) -> Evidence:
        """Keep what matters of a trial.

        Parameters
        ----------
        probabilities
            Of each class for all cells, shape (n_rows, n_classes).
        latent
            Of all cells, shape (n_rows, n_latent).
        labels
            Class codes of the reference, shape (n_reference,).
        parts
            Its training and held-out rows.
        """
        asked = np.concatenate([parts.held_out, np.arange(parts.n_reference, len(probabilities))])
        top = _best(probabilities[asked])
        known = some_of_each(labels, parts.labelled, MOST_KNOWN)
        return cls(
            held_out=parts.held_out,
            labels=top.astype(np.uint16),
            probabilities=np.take_along_axis(probabilities[asked], top, axis=1).astype(np.float16),
            distance=_half(distances(latent[known], latent[asked])),
        )

    @classmethod
    def from_predictions(cls, found: Predictions) -> Evidence:
        """Return what an earlier version's predictions still tell: the best class of query cells alone."""
        of_held_out = found.probabilities[found.held_out]
        top = _best(of_held_out)
        # A class that is named twice adds nothing the second time.
        again = np.repeat(found.query_label[:, None], top.shape[1], axis=1)
        best = np.zeros(again.shape)
        best[:, 0] = found.query_confidence
        return cls(
            held_out=found.held_out,
            labels=np.concatenate([top.astype(np.uint16), again]),
            probabilities=np.concatenate([np.take_along_axis(of_held_out, top, axis=1), best]).astype(np.float16),
            distance=np.empty(0, dtype=np.float16),
        )

    def soft(self, classes: int) -> Floats:
        """Return the probability of every class, shape (n_cells, n_classes); what is left is shared by the unnamed."""
        n = len(self.labels)
        found, named = np.zeros((n, classes), dtype=np.float32), np.zeros((n, classes), dtype=bool)
        for labels, probabilities in zip(self.labels.T, self.probabilities.T, strict=True):
            found[np.arange(n), labels] += probabilities
            named[np.arange(n), labels] = True
        left = np.maximum(1 - found.sum(axis=1), 0) / np.maximum((~named).sum(axis=1), 1)
        return np.where(named, found, left[:, None])


def distances(known: Floats, asked: Floats) -> npt.NDArray[np.float64]:
    """Return how far cells lie from known ones, in units of how far those lie from each other.

    Parameters
    ----------
    known
        Latent means of labelled training cells, shape (n_known, n_latent), 2 at least.
    asked
        Latent means of other cells, shape (n_cells, n_latent).

    Returns
    -------
    Mean distance to the 10 nearest known cells over the median of the same among the known cells, each without
    itself, shape (n_cells,). 1 is as close as known cells are; where those all coincide, distances are as they are.
    """
    from sklearn.neighbors import NearestNeighbors  # slow to import, and only stages need it

    nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(known) - 1), algorithm="brute").fit(known)
    usual = float(np.median(nearest.kneighbors()[0].mean(axis=1)))
    found: npt.NDArray[np.float64] = nearest.kneighbors(asked)[0].mean(axis=1) / (usual or 1.0)
    return found


def some_of_each(labels: npt.NDArray[np.int32], rows: Indices, most: int) -> Indices:
    """Return at most so many rows, in order: of each class as many at most as if all were equally large."""
    order = np.random.default_rng(0).permutation(rows)
    found = np.unique(labels[rows])
    each = max(most // found.size, 1)
    return np.sort(np.concatenate([order[labels[order] == code][:each] for code in found]))


def _half(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float16]:
    """Half precision ends at 65,504, and what is farther is as good as infinitely far."""
    return np.minimum(values, np.finfo(np.float16).max).astype(np.float16)


def _best(probabilities: Floats) -> npt.NDArray[np.intp]:
    """Codes of the most probable classes of each cell, best first; of equal ones the first."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
