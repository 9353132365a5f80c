"""Consensus: what the trainings of a study call a cell together, with what score, and how many of them agree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from study.errors import InputError
from study.trials import Evidence

Floats = npt.NDArray[np.float32]
_NONE: npt.NDArray[np.float64] = np.zeros(0)


@dataclass(frozen=True, eq=False)
class Pool:
    """What some trainings say of the same cells, as means over them.

    Attributes
    ----------
    probabilities
        Mean probability of each class, shape (n_cells, n_classes).
    votes
        Share of the trainings that call a cell so, shape (n_cells, n_classes).
    distance
        Mean distance to known cells, shape (n_cells,); NaN where not all trainings kept it.
    trainings
        How many they are.
    """

    probabilities: Floats
    votes: Floats
    distance: Floats
    trainings: int

    @property
    def label(self) -> npt.NDArray[np.intp]:
        """Code of the class with the largest mean probability, shape (n_cells,)."""
        found: npt.NDArray[np.intp] = self.probabilities.argmax(axis=1)
        return found

    @property
    def score(self) -> Floats:
        """Its mean probability."""
        found: Floats = self.probabilities.max(axis=1)
        return found

    @property
    def agreement(self) -> Floats:
        """Share of the trainings that call a cell what they call it together."""
        found: Floats = np.take_along_axis(self.votes, self.label[:, None], axis=1)[:, 0]
        return found

    def __getitem__(self, rows: npt.NDArray[np.intp] | slice) -> Pool:
        """Return the same of some cells."""
        return Pool(self.probabilities[rows], self.votes[rows], self.distance[rows], self.trainings)


def pool(evidence: Iterable[Evidence], classes: int) -> Pool:
    """Average what trainings say, one after the other: memory grows with cells and classes, not with trainings.

    Parameters
    ----------
    evidence
        Of trainings that asked for the same cells.
    classes
        Number of classes.

    Raises
    ------
    InputError
        If there is no training.
    """
    count, probabilities, votes, distance = 0, _NONE, _NONE, _NONE
    for one in evidence:
        soft = one.soft(classes)
        if not count:
            probabilities, votes = np.zeros(soft.shape), np.zeros(soft.shape)
            distance = np.zeros(len(soft))
        elif len(soft) != len(probabilities):
            raise ValueError(f"trainings of {len(probabilities)} and of {len(soft)} cells cannot be pooled")
        probabilities += soft
        votes[np.arange(len(soft)), one.labels[:, 0]] += 1
        distance += one.distance if one.distance.size else np.nan
        count += 1
    if not count:
        raise InputError("no training of this query is finished: there are no labels to put together. Run the study.")
    return Pool(_mean(probabilities, count), _mean(votes, count), _mean(distance, count), count)


def _mean(sums: npt.NDArray[np.float64], count: int) -> Floats:
    return (sums / count).astype(np.float32)
