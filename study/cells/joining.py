"""Counts of all sources put together on the genes that they share, in one pass over each file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from study.cells.chunks import Rows, spool
from study.cells.findings import Findings
from study.cells.fingerprint import Printer, Prints
from study.cells.sheet import Sheet
from study.config import DataConfig

LEAST_GENES = 20  # that vary, to find the most variable among them


def join(
    config: DataConfig,
    sheets: list[Sheet],
    genes: pd.Index,
    is_reference: np.ndarray,
    again: np.ndarray,
    findings: Findings,
) -> tuple[sp.csr_matrix, np.ndarray, Prints]:
    """Put the counts of all sources together.

    Parameters
    ----------
    config
        Whether all genes are used, or the most variable ones.
    sheets
        The sources.
    genes
        The genes that all share.
    is_reference, again
        Which rows of the sources are reference cells, and which of these are read once more and left out.
    findings
        Takes what is wrong.

    Returns
    -------
    Counts on the genes used, without the rows that are left out; the genes used; fingerprints of all rows on the
    shared genes.
    """
    printer = Printer(len(genes))
    counts = spool(_once(sheets, genes, again, printer), len(genes), sum(sheet.matrix.size for sheet in sheets))
    is_reference = is_reference[~again]
    if config.genes != "all":
        chosen = _variable(counts[np.flatnonzero(is_reference)], config.genes, findings)
        genes = genes[chosen]
        counts = spool(_columns(Rows.all(counts), np.flatnonzero(chosen)), len(genes), counts.nnz)
    names = np.concatenate([sheet.obs.index.to_numpy(dtype=str) for sheet in sheets])
    return counts, genes.to_numpy(dtype=str), printer.prints(names)


def _once(sheets: list[Sheet], genes: pd.Index, again: np.ndarray, printer: Printer) -> Iterator[sp.csr_matrix]:
    """Read the rows of all sheets on some genes, show them to the printer, and leave out those that are read again."""
    start = 0
    for sheet in sheets:
        for part in _columns(sheet.matrix, sheet.genes.get_indexer(genes)):
            printer.see(part)
            left_out = again[start : start + part.shape[0]]
            start += part.shape[0]
            yield part[np.flatnonzero(~left_out)] if left_out.any() else part


def _columns(parts: Iterable[sp.csr_matrix], columns: np.ndarray) -> Iterator[sp.csr_matrix]:
    """Take some columns of canonical matrices, in this order."""
    for part in parts:
        if not np.array_equal(columns, np.arange(part.shape[1])):
            part = part[:, columns]
            part.sort_indices()
        yield part


def _variable(reference: sp.csr_matrix, n: int, findings: Findings) -> np.ndarray:
    """Choose the `n` most variable genes of the reference; no query has a say, so all queries meet the same genes."""
    import scanpy  # slow to import

    n_genes = reference.shape[1]
    squares, means = reference.power(2).mean(axis=0), np.square(reference.mean(axis=0))
    varying = int((np.asarray(squares - means) > 1e-9).sum())
    try:
        if n > varying:
            raise ValueError(f"{varying:,} of {n_genes:,} shared genes vary in it")
        if varying < LEAST_GENES:  # loess would crash the process
            raise ValueError(f"only {varying:,} genes vary in it, too few to fit their mean and variance")
        table = scanpy.pp.highly_variable_genes(AnnData(reference), n_top_genes=n, flavor="seurat_v3", inplace=False)
    except ValueError as error:
        findings.problems.append(
            f"data.genes={n}: so many variable genes cannot be found in the reference ({error}). Use data.genes=all."
        )
        return np.ones(n_genes, dtype=bool)
    chosen: np.ndarray = table["highly_variable"].to_numpy(dtype=bool)
    return chosen
