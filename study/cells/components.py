"""Cells as points: principal components of log-normalised counts, which show a shift before anything is trained."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

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
    from sklearn.decomposition import PCA  # slow to import

    rows = np.sort(np.random.default_rng(0).permutation(cells.counts.shape[0])[:most])
    features = log_normalised(cells.counts[rows])
    wanted = min(COMPONENTS, min(features.shape) - 1)
    found = PCA(wanted, svd_solver="arpack", random_state=0).fit_transform(features)  # counts stay sparse
    return rows, found.astype(np.float32)
