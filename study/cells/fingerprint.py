"""Which cells are the same cell: known by their counts, found by one number for each while these are read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

# Shallow cells have equal counts by chance: with fewer genes than this, their names must be equal too.
GENES_TO_TELL = 20
SEED = 52_403


def gene_weights(n_genes: int) -> np.ndarray:
    """Return a random odd whole number below 2^64 for each gene, always the same, shape (n_genes,), uint64."""
    drawn = np.random.default_rng(SEED).integers(0, 2**63, n_genes, dtype=np.uint64)
    return drawn * np.uint64(2) + np.uint64(1)


@dataclass(frozen=True, eq=False)
class Prints:
    """What tells cells apart.

    Attributes
    ----------
    values
        The sum of a cell's counts times the weights of their genes, modulo 2^64, shape (n_cells,). Two different cells
        have the same one with a probability of about 2^-63: below one in a million for all pairs of a million cells.
        For shallow cells their name counts as well.
    names
        Their names in their file, shape (n_cells,).
    """

    values: np.ndarray
    names: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Prints:
        """Return those of some cells."""
        return Prints(self.values[rows], self.names[rows])


class Printer:
    """Takes the fingerprints of cells that pass by, some rows at a time."""

    def __init__(self, n_genes: int) -> None:
        self._weights = gene_weights(n_genes)
        self._values: list[np.ndarray] = []
        self._genes: list[np.ndarray] = []

    def see(self, part: sp.csr_matrix) -> None:
        """Take the fingerprints of canonical counts."""
        whole = sp.csr_matrix((part.data.astype(np.uint64), part.indices, part.indptr), shape=part.shape)
        self._values.append(whole @ self._weights)
        self._genes.append(np.diff(part.indptr))

    def prints(self, names: np.ndarray) -> Prints:
        """Return those of all cells seen, which have these names."""
        values, genes = np.concatenate(self._values), np.concatenate(self._genes)
        shallow = genes < GENES_TO_TELL
        values[shallow] ^= pd.util.hash_array(names[shallow].astype(object), categorize=False)
        return Prints(values, names)


def found_in(cells: Prints, others: Prints) -> np.ndarray:
    """Return for each cell the number of an equal one among others, or -1, shape (n_cells,)."""
    if not len(others.values):
        return np.full(len(cells.values), -1, dtype=np.int64)
    known, first = np.unique(others.values, return_index=True)
    place = np.searchsorted(known, cells.values).clip(0, len(known) - 1)
    found: np.ndarray = np.where(known[place] == cells.values, first[place], -1)
    return found


def example_of(cells: Prints, others: Prints, where: np.ndarray) -> str:
    """Name the first cell that `found_in` found: "such as 'a'", with its other name where that differs."""
    mine = int(np.flatnonzero(where >= 0)[0])
    name, other = str(cells.names[mine]), str(others.names[where[mine]])
    return f"such as {name!r}" if name == other else f"such as {name!r}, there {other!r}"
