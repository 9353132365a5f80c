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
    predictors*): the floor(error (n + 1))-th smallest probability that cells of a class give it. It is 0, so that
    the class is in every set, where a class has too few cells to tell.
    """
    found = np.zeros(held_out.probabilities.shape[1], dtype=np.float32)
    for code in range(len(found)):
        mine = np.sort(held_out.probabilities[truth == code, code])
        place = int(np.floor(error * (len(mine) + 1)))
        if place >= 1:
            found[code] = mine[place - 1]
    return found


def sets_of(pool: Pool, least: Floats) -> npt.NDArray[np.bool_]:
    """Return which classes are in the set of each cell, shape (n_cells, n_classes); a set can be empty."""
    found: npt.NDArray[np.bool_] = pool.probabilities >= least
    return found
