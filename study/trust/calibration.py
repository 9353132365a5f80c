"""How often a consensus is right that has such a score: learned on reference cells that no training of it saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from study.trust.consensus import Floats, Pool

# A class gets a curve of its own where so many held-out cells are called it; else that of all classes together.
FEWEST = 50


@dataclass(frozen=True, eq=False)
class Calibration:
    """From the score of a consensus to how often such a consensus was right on held-out reference cells.

    Attributes
    ----------
    overall
        A rising curve over all classes (isotonic regression; Zadrozny & Elkan 2002, *Transforming classifier scores
        into accurate multiclass probability estimates*).
    by_class
        The curve of each class with enough cells, by its code.
    """

    overall: Any
    by_class: dict[int, Any]

    def __call__(self, pool: Pool) -> Floats:
        """Return how probable it is that each cell's label is right, shape (n_cells,)."""
        label, score = pool.label, pool.score
        found = np.asarray(self.overall.predict(score), dtype=np.float32)
        for code, curve in self.by_class.items():
            mine = label == code
            if mine.any():
                found[mine] = curve.predict(score[mine])
        return found


def calibrate(held_out: Pool, truth: npt.NDArray[np.int32]) -> Calibration:
    """Learn from held-out reference cells.

    Parameters
    ----------
    held_out
        What trainings that held them out say of them.
    truth
        Their labels, shape (n_cells,).
    """
    label, right = held_out.label, held_out.label == truth
    by_class = {}
    for code in np.unique(label):
        mine = label == code
        if np.count_nonzero(mine) >= FEWEST:
            by_class[int(code)] = _curve(held_out.score[mine], right[mine])
    return Calibration(_curve(held_out.score, right), by_class)


def _curve(score: Floats, right: npt.NDArray[np.bool_]) -> Any:
    from sklearn.isotonic import IsotonicRegression  # slow to import

    # One cell more of each kind, at the ends: a few cells that are all right do not make the next one certain.
    scores = np.concatenate([[score.min(initial=1)], score, [score.max(initial=0)]])
    outcomes = np.concatenate([[1.0], right, [0.0]])
    return IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, outcomes)
