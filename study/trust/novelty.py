"""How little a cell is like the reference: by its distance to known cells, and by how doubtful its label is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from study.trust.consensus import Floats, Pool

LEAST = 0.001  # of doubt or distance: no logarithm is of nothing


def novelty(pool: Pool, held_out: Pool) -> Floats:
    """Return the share of held-out reference cells that are less strange than each cell, shape (n_cells,).

    A cell of the reference's classes lies above 0.95 in 5% of cases, if the query is like the reference but for what
    is new in it: so a limit sets the error that is made on reference cells (conformal anomaly detection, Laxhammar &
    Falkman 2015).

    Parameters
    ----------
    pool
        What trainings say of cells.
    held_out
        What trainings that held them out say of reference cells.
    """
    usual = np.sort(_strangeness(held_out, held_out))
    less = np.searchsorted(usual, _strangeness(pool, held_out), side="left")
    found: Floats = (less / (len(usual) + 1)).astype(np.float32)
    return found


def _strangeness(pool: Pool, held_out: Pool) -> npt.NDArray[np.float64]:
    """How far and how doubtful cells are, in units of what is usual among held-out cells.

    Distance counts twice: removed classes were found best so (docs/trust.md). Where trainings kept none, doubt is all
    that there is.
    """
    found = _beyond_usual(1 - pool.score, 1 - held_out.score)
    if not (np.isnan(pool.distance).any() or np.isnan(held_out.distance).any()):
        found += 2 * _beyond_usual(pool.distance, held_out.distance)
    return found


def _beyond_usual(values: Floats, usual: Floats) -> npt.NDArray[np.float64]:
    """Logarithms of values less their usual median, over the distance from there to the 84th percentile."""
    logs, of = (np.log(one.astype(float) + LEAST) for one in (values, usual))
    middle, upper = np.percentile(of, (50, 84))
    found: npt.NDArray[np.float64] = (logs - middle) / ((upper - middle) or 1.0)
    return found
