"""Which cells are the same cell: known by their counts, through one number for each while these are read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

# Shallow cells have equal counts by chance: with fewer genes than this, their names must be equal too.
GENES_TO_TELL = 20
SEED = 52_403


@dataclass(frozen=True, eq=False)
class Prints:
    """What tells cells apart.

    Attributes
    ----------
    values
        One number for each cell, shape (n_cells,), uint64: equal for equal cells. For others it is not, but with a
        probability of about 2**-63 a pair: in a million cells any two meet so less than once in ten million times.
    names
        Their names in their file, shape (n_cells,).
    """

    values: np.ndarray
    names: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Prints:
        """Return those of some cells."""
        return Prints(self.values[rows], self.names[rows])


class Printer:
    """Takes the fingerprints of cells that pass by, some rows at a time.

    A cell's number is the sum of its counts times a random odd number for each gene, modulo 2**64; two cells have the
    same one if the weighted sum of their differences is 0, and for any differences few weights make it so.
    """

    def __init__(self, n_genes: int) -> None:
        drawn = np.random.default_rng(SEED).integers(2**63, size=n_genes, dtype=np.uint64)
        self._weights = drawn * np.uint64(2) + np.uint64(1)
        self._values: list[np.ndarray] = []
        self._genes: list[np.ndarray] = []

    def see(self, part: sp.csr_matrix) -> None:
        """Take the fingerprints of cells by their canonical counts, shape (any number of cells, n_genes)."""
        whole = sp.csr_matrix((part.data.astype(np.uint64), part.indices, part.indptr), shape=part.shape)
        self._values.append(np.asarray(whole @ self._weights))
        self._genes.append(np.diff(part.indptr))

    def prints(self, names: np.ndarray) -> Prints:
        """Return those of all cells seen, which have these names."""
        values, genes = np.concatenate(self._values), np.concatenate(self._genes)
        shallow = genes < GENES_TO_TELL
        values[shallow] ^= pd.util.hash_array(names[shallow].astype(object), categorize=False)
        return Prints(values, names)


def found_in(cells: Prints, others: Prints) -> np.ndarray:
    """Return for each cell the number of the first equal one among others, or -1, shape (n_cells,)."""
    index = pd.Index(others.values)
    first = np.flatnonzero(~index.duplicated())
    found = index[first].get_indexer(cells.values)
    return np.where(found >= 0, first[found], -1) if len(first) else found


def example_of(cells: Prints, others: Prints, where: np.ndarray) -> str:
    """Name the first cell that `found_in` found: "such as 'a'", with its other name where that differs."""
    mine = int(np.flatnonzero(where >= 0)[0])
    name, other = str(cells.names[mine]), str(others.names[where[mine]])
    return f"such as {name!r}" if name == other else f"such as {name!r}, there {other!r}"
