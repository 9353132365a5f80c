"""Counts in the memory of a device, in as few bytes as hold them, and minibatches of one shape, made there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

# Torch can hardly compute with unsigned numbers of 16 bits.
WHOLE = (torch.uint8, torch.int16)
CHUNK = 8192  # cells that are dense on the host at once


@dataclass(frozen=True, eq=False)
class Dense:
    """Counts of all cells and genes, shape (n_cells, n_genes), of one of the types `WHOLE`."""

    counts: Tensor

    def gather(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the counts of some cells, shape (*rows.shape, n_genes)."""
        return self.counts.index_select(0, rows.flatten()).to(dtype).view(*rows.shape, -1)


@dataclass(frozen=True, eq=False)
class Sparse:
    """Counts above 0 alone.

    Attributes
    ----------
    starts, sizes
        Where the counts of each cell start, and how many they are, shape (n_cells,).
    genes, counts
        Gene and value of each count, shape (n_counts,).
    width
        The most counts of a cell.
    """

    starts: Tensor
    sizes: Tensor
    genes: Tensor
    counts: Tensor
    width: int
    n_genes: int

    def gather(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the counts of some cells, shape (*rows.shape, n_genes)."""
        cells = rows.reshape(-1, 1)
        place = torch.arange(self.width, device=rows.device)
        there = place < self.sizes[cells]
        # As many for each cell as the fullest has: what is not there adds 0 to the first gene.
        at = torch.where(there, self.starts[cells] + place, 0)
        genes = torch.where(there, self.genes[at].long(), 0)
        values = torch.where(there, self.counts[at].to(dtype), 0.0)
        dense = values.new_zeros(cells.shape[0], self.n_genes)
        return dense.scatter_add_(1, genes, values).view(*rows.shape, self.n_genes)


@dataclass(frozen=True, eq=False)
class OnDevice:
    """Cells of all members of a group.

    Attributes
    ----------
    counts
        What gathers them.
    batch, labels
        Codes, shape (n_cells,), int64.
    """

    counts: Dense | Sparse
    batch: Tensor
    labels: Tensor


def hold(matrix: sp.csr_matrix, device: torch.device, room: int) -> Dense | Sparse:
    """Copy counts to a device, dense where the smallest type for whole numbers holds them in the bytes there are."""
    dtype = smallest(matrix)
    if dtype is None or matrix.shape[0] * matrix.shape[1] * dtype.itemsize > room:
        sizes = np.diff(matrix.indptr).astype(np.int64)
        return Sparse(
            starts=torch.from_numpy(matrix.indptr[:-1].astype(np.int64)).to(device),
            sizes=torch.from_numpy(sizes).to(device),
            genes=torch.from_numpy(matrix.indices.astype(np.int32)).to(device),
            counts=torch.from_numpy(matrix.data.astype(np.float32)).to(device),
            width=max(int(sizes.max(initial=0)), 1),
            n_genes=matrix.shape[1],
        )
    counts = torch.empty(matrix.shape, dtype=dtype, device=device)
    for start in range(0, matrix.shape[0], CHUNK):
        dense = matrix[start : start + CHUNK].toarray()
        counts[start : start + CHUNK] = torch.from_numpy(dense).to(dtype)
    return Dense(counts)


def smallest(matrix: sp.csr_matrix) -> torch.dtype | None:
    """Return the smallest of the types `WHOLE` that holds all counts, or None."""
    values = matrix.data
    if values.size and (values.min() < 0 or (values != np.floor(values)).any()):
        return None
    most = values.max(initial=0)
    return next((dtype for dtype in WHOLE if most <= torch.iinfo(dtype).max), None)
