"""Sets of labels that miss the true one in at most a chosen share of the reference cells of each class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from study.trust.consensus import Floats, Pool

ERROR = 0.1


def least_probable(held_out: Pool, truth: npt.NDArray[np.int32], error: float = ERROR) -> Floats:
    """Return the probability from which on a class belongs to a set, shape (n_classes,).

    Parameters
    ----------
    held_out
        What trainings that held them out say of reference cells.
    truth
        Their labels, shape (n_cells,).
    error
        Share of the cells of a class whose set may miss it.

    Notes
    -----
    Split conformal prediction, one threshold a class (Vovk 2012, *Conditional validity of inductive conformal
    predictors*): the floor(error (n + 1))-th smallest probability that cells of a class give it. Classes with too few
    cells for that have one threshold together; where all of them are too few it is 0, so that they are in every set.
    """
    own = held_out.probabilities[np.arange(len(truth)), truth]  # what each cell gives its own class
    found = np.zeros(held_out.probabilities.shape[1], dtype=np.float32)
    sizes = np.bincount(truth, minlength=len(found))
    few = error * (sizes + 1) < 1
    for codes in (*np.flatnonzero(~few)[:, None], np.flatnonzero(few)):
        mine = np.sort(own[np.isin(truth, codes)])
        place = int(error * (len(mine) + 1))
        found[codes] = mine[place - 1] if place else 0
    return found


def sets_of(pool: Pool, least: Floats) -> npt.NDArray[np.bool_]:
    """Return which classes are in the set of each cell, shape (n_cells, n_classes); a set can be empty."""
    found: npt.NDArray[np.bool_] = pool.probabilities >= least
    return found
