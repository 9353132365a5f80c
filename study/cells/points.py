"""Some cells of the reference and of each query as points of one plane, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from study.cells.chunks import Rows
from study.cells.components import principal, some_of


@dataclass(frozen=True)
class Points:
    """Some cells of the reference, or of a query, at random.

    Attributes
    ----------
    rows
        Which cells, as numbers within the part, ascending, shape (n,).
    totals
        Counts of each, shape (n,).
    at
        Principal components of log-normalised counts, which all parts have together, shape (n, n_components).
    of
        How many cells the part has.
    """

    rows: npt.NDArray[np.int64]
    totals: npt.NDArray[np.float32]
    at: npt.NDArray[np.float32]
    of: int


def points_of(parts: Mapping[str, Rows], most: int) -> dict[str, Points]:
    """Return some cells of each part as points.

    Parameters
    ----------
    parts
        Counts of the reference and each query, over the same genes.
    most
        How many cells at most, of all parts together. Each has its equal share of them, so that a large query does not
        decide alone in which directions cells differ.
    """
    filled = {name: part for name, part in parts.items() if len(part.rows)}
    if not filled:
        return {}
    each = max(most // len(filled), 1)
    rows = {name: some_of(len(part.rows), each) for name, part in filled.items()}
    counts = sp.vstack([part.matrix[part.rows[rows[name]]] for name, part in filled.items()], format="csr")
    ends = np.cumsum([len(some) for some in rows.values()])[:-1]
    at = np.split(principal(counts), ends)
    totals = np.split(np.asarray(counts.sum(axis=1), dtype=np.float32).ravel(), ends)
    return {
        name: Points(rows[name], mine, here, len(part.rows))
        for (name, part), mine, here in zip(filled.items(), totals, at, strict=True)
    }
