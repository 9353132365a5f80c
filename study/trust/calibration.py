"""How probable each class is, given what trainings say: learned on reference cells that these held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from study.trust.consensus import Floats, Pool

# A class gets a curve of its own where so many held-out cells are of it; else that of all such classes together.
FEWEST = 50


@dataclass(frozen=True, eq=False)
class Calibration:
    """From the mean probability that the trainings of a replicate give a class to how often a cell is of it.

    Attributes
    ----------
    curves
        A rising curve for each class, by its code (isotonic regression of one class against the rest; Zadrozny &
        Elkan 2002, *Transforming classifier scores into accurate multiclass probability estimates*).
    """

    curves: Sequence[Any]

    def __call__(self, replicate: Pool) -> Floats:
        """Return the probability of each class by what a replicate's trainings say, shape (n_cells, n_classes)."""
        each = [curve.predict(replicate.probabilities[:, code]) for code, curve in enumerate(self.curves)]
        found = np.stack(each, axis=1).astype(np.float32)
        # Where no class is likely, all are equally so.
        total = found.sum(axis=1, keepdims=True)
        shares: Floats = np.divide(found, total, out=np.full_like(found, 1 / len(each)), where=total > 0)
        return shares


def calibrate(held_out: Sequence[Pool], truths: Sequence[npt.NDArray[np.int32]]) -> Calibration:
    """Learn from held-out reference cells.

    Parameters
    ----------
    held_out
        What the trainings of each replicate say of the cells that it held out.
    truths
        Their labels, each of shape (n_cells,).
    """
    said = np.concatenate([one.probabilities for one in held_out])
    is_it = np.concatenate(truths)[:, None] == np.arange(said.shape[1])
    few = np.flatnonzero(is_it.sum(axis=0) < FEWEST)
    together = _curve(said[:, few].ravel(), is_it[:, few].ravel()) if few.size else None
    return Calibration(
        [together if code in few else _curve(said[:, code], is_it[:, code]) for code in range(said.shape[1])]
    )


def _curve(said: Floats, is_it: npt.NDArray[np.bool_]) -> Any:
    from sklearn.isotonic import IsotonicRegression  # slow to import

    # One cell more of each kind, at the ends: a few cells that are all right do not make the next one certain.
    ends = ([said.min(), said.max()], [1.0, 0.0])
    outcomes = np.concatenate([ends[1], is_it])
    return IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(np.concatenate([ends[0], said]), outcomes)
