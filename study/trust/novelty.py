"""How little a cell is like the reference: by its distance to known cells, its score, and whether trainings agree."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from study.trust.consensus import Floats, Pool


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
    """Mean rank among held-out cells of what is strange about a cell; distances count where trainings kept them."""
    signs = [(1 - pool.score, 1 - held_out.score), (1 - pool.agreement, 1 - held_out.agreement)]
    if not (np.isnan(pool.distance).any() or np.isnan(held_out.distance).any()):
        signs.append((pool.distance, held_out.distance))
    ranks = [np.searchsorted(np.sort(of), values, side="left") / len(of) for values, of in signs]
    found: npt.NDArray[np.float64] = np.mean(ranks, axis=0)
    return found
