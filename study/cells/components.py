"""Cells as points: principal components of log-normalised counts, which show a shift before anything is trained."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import ArpackError

from study.cells.prepared import Cells

DEPTH = 1e4
COMPONENTS = 4


def log_normalised(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Return ``log(1 + 10,000 counts / total)`` of each cell, the same shape."""
    totals = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1)
    scaled: sp.csr_matrix = sp.diags_array(DEPTH / totals).tocsr() @ counts
    return scaled.log1p()


def components(cells: Cells, most: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return some cells at random, and their principal components.

    Parameters
    ----------
    cells
        Reference and query.
    most
        How many cells at most.

    Returns
    -------
    Rows of the cells, ascending, and their coordinates, shape (n_rows, 4); fewer where there are fewer cells or genes.
    """
    rows = some_of(cells.counts.shape[0], most)
    return rows, principal(cells.counts[rows])


def some_of(n_rows: int, most: int) -> npt.NDArray[np.int64]:
    """Return so many numbers of rows at most, at random, ascending."""
    rows: npt.NDArray[np.int64] = np.sort(np.random.default_rng(0).permutation(n_rows)[:most])
    return rows


def principal(counts: sp.csr_matrix) -> npt.NDArray[np.float32]:
    """Return principal components of log-normalised counts.

    Parameters
    ----------
    counts
        Shape (n_cells, n_genes).

    Returns
    -------
    Coordinates, shape (n_cells, 4); fewer components where there are fewer cells or genes, zeros where all cells are
    alike.
    """
    from sklearn.decomposition import PCA  # slow to import

    features = log_normalised(counts)
    wanted = min(COMPONENTS, min(features.shape) - 1)
    if wanted < 1:
        return np.zeros((counts.shape[0], 1), dtype=np.float32)
    try:
        found = PCA(wanted, svd_solver="arpack", random_state=0).fit_transform(features)  # counts stay sparse
    except ArpackError:  # there is no direction in which cells differ
        found = np.zeros((counts.shape[0], wanted))
    coordinates: npt.NDArray[np.float32] = found.astype(np.float32)
    return coordinates
