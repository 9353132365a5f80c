"""Sets of labels that miss the true one in at most a chosen share of the reference cells of each class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Probable = npt.NDArray[np.floating]

ERROR = 0.1


def least_probable(probable: Probable, truth: npt.NDArray[np.int32], error: float = ERROR) -> Probable:
    """Return the probability from which on a class belongs to a set, shape (n_classes,).

    Parameters
    ----------
    probable
        How probable each class is of reference cells, by trainings that held them out, shape (n_cells, n_classes).
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
    own = probable[np.arange(len(truth)), truth]  # what each cell gives its own class
    found = np.zeros(probable.shape[1])
    sizes = np.bincount(truth, minlength=len(found))
    few = error * (sizes + 1) < 1
    for codes in (*np.flatnonzero(~few)[:, None], np.flatnonzero(few)):
        mine = np.sort(own[np.isin(truth, codes)])
        place = int(error * (len(mine) + 1))
        found[codes] = mine[place - 1] if place else 0
    return found


def sets_of(probable: Probable, least: Probable) -> npt.NDArray[np.bool_]:
    """Return which classes are in the set of each cell, shape (n_cells, n_classes); a set can be empty."""
    found: npt.NDArray[np.bool_] = probable >= least
    return found
