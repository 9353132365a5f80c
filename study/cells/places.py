"""Where prepared cells are in the files that they came from, and what these say of them.

Prepared cells have other names, another order and fewer genes. Nothing of this is kept with them: it follows from the
files, which are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from study.cells.chunks import spool
from study.cells.findings import Findings
from study.cells.names import as_text, spelled
from study.cells.prepared import Annotation
from study.cells.sheet import Sheet
from study.cells.sources import read_sheets, reference_values
from study.config import DataConfig
from study.errors import InputError


@dataclass(frozen=True, eq=False)
class Places:
    """Where some cells are in their files.

    Attributes
    ----------
    cell
        Their names there, shape (n_cells,).
    dataset
        Values of the dataset column, shape (n_cells,).
    sheet
        Numbers of their sheets, shape (n_cells,).
    at
        Rows of their sheets, shape (n_cells,).
    row
        Rows of their files, counted from 0, shape (n_cells,).
    """

    cell: np.ndarray
    dataset: np.ndarray
    sheet: np.ndarray
    at: np.ndarray
    row: np.ndarray

    @property
    def order(self) -> np.ndarray:
        """What sorts them as they are in their files, shape (n_cells,)."""
        return np.lexsort((self.at, self.sheet))

    @property
    def names(self) -> np.ndarray:
        """Unique names: their own, if those are, else with the dataset before all."""
        return self.cell if pd.Index(self.cell).is_unique else _with_dataset(self.cell, self.dataset)

    @property
    def table(self) -> pd.DataFrame:
        """What a user finds them by, a row per cell: `cell`, `dataset` and `row`."""
        return pd.DataFrame({"cell": self.cell, "dataset": self.dataset, "row": self.row})

    def take(self, cells: np.ndarray) -> Places:
        """Return the places of some cells."""
        return Places(self.cell[cells], self.dataset[cells], self.sheet[cells], self.at[cells], self.row[cells])


def open_sheets(config: DataConfig) -> list[Sheet]:
    """Return the sources of prepared cells; raise `InputError` where they cannot be read any more."""
    findings = Findings()
    sheets = read_sheets(config, findings)
    findings.refuse()
    return sheets


def places_of(config: DataConfig, sheets: Sequence[Sheet], cells: Annotation) -> Places:
    """Find prepared cells in their sources by what they are called.

    Parameters
    ----------
    config
        Where they come from.
    sheets
        The sources.
    cells
        Reference and a query, but not the twin `self`, whose cells are copies.

    Returns
    -------
    The places of all cells, in their order.

    Raises
    ------
    InputError
        If a cell is not there, so that the sources cannot be those that it came from.
    """
    sizes = [len(sheet.obs) for sheet in sheets]
    names = np.concatenate([sheet.obs.index.to_numpy(dtype=str) for sheet in sheets])
    dataset = np.concatenate([as_text(sheet.column(config.dataset_key, "dataset_key")) for sheet in sheets])
    dataset = dataset if config.source == "separate" else spelled(dataset, config)
    row = np.concatenate([_rows_in_file(sheet) for sheet in sheets])
    is_reference = np.isin(dataset, reference_values(config))
    wanted = np.split(cells.names, [cells.n_reference])
    found = np.concatenate(
        [
            _found(here, names, dataset, np.flatnonzero(role))
            for here, role in zip(wanted, (is_reference, ~is_reference), strict=True)
        ]
    )
    sheet = np.repeat(np.arange(len(sheets)), sizes)
    at = np.concatenate([np.arange(size) for size in sizes])
    return Places(names, dataset, sheet, at, row).take(found)


def _rows_in_file(sheet: Sheet) -> np.ndarray:
    """The row in its file of each cell of a sheet, which need not have all cells of the file."""
    if sheet.file is None:
        return np.arange(len(sheet.obs))
    rows: np.ndarray = sheet.file.obs.index.get_indexer(sheet.obs.index)
    return rows


def _found(wanted: np.ndarray, names: np.ndarray, dataset: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows, among some, of the cells that are called so: all by their own names, or all with the dataset before."""
    for known in (names[rows], _with_dataset(names[rows], dataset[rows])):
        index = pd.Index(known)
        first = np.flatnonzero(~index.duplicated())  # files may have the same reference
        found = index[first].get_indexer(pd.Index(wanted))
        if (found >= 0).all():
            at: np.ndarray = rows[first[found]]
            return at
    missing = wanted[found < 0]
    raise InputError(
        f"data: {len(missing):,} cells (such as {str(missing[0])!r}) are no longer in the files that they were read "
        "from. Expected files that do not change while a command runs; give the same command again."
    )


def _with_dataset(names: np.ndarray, dataset: np.ndarray) -> np.ndarray:
    """What `alignment` calls cells where files share names."""
    return np.char.add(np.char.add(dataset.astype(str), ":"), names)


def cells_at(sheets: Sequence[Sheet], places: Places) -> AnnData:
    """Return some cells as their files have them.

    Parameters
    ----------
    sheets
        The sources.
    places
        The cells, sorted as in their files.

    Returns
    -------
    All columns of `obs`, all genes with their `var`, and the counts. Of several files, the genes that all of them
    have, with what the first says of them. The counts are in temporary files and read-only, see `spool`.
    """
    used = {number: np.flatnonzero(places.sheet == number) for number in np.unique(places.sheet)}
    first, *others = (sheets[number] for number in used)
    shared = first.genes
    for sheet in others:
        shared = shared[shared.isin(sheet.genes)]
    parts = (_counts(sheets[number], places.at[cells], shared) for number, cells in used.items())
    counts = spool((part for one in parts for part in one), len(shared))
    tables = [_obs(sheets[number], places.take(cells)) for number, cells in used.items()]
    obs = tables[0] if len(tables) == 1 else _joined(tables).set_axis(places.names.astype(str))
    for name in obs.columns[obs.dtypes == "category"]:
        obs[name] = obs[name].cat.remove_unused_categories()
    return AnnData(counts, obs=obs, var=_var(first).iloc[first.genes.get_indexer(shared)])


def _obs(sheet: Sheet, places: Places) -> pd.DataFrame:
    """What a file says of some of its cells; a sheet may have columns that were made on reading."""
    return sheet.obs.iloc[places.at].copy() if sheet.file is None else sheet.file.obs.iloc[places.row].copy()


def _var(sheet: Sheet) -> pd.DataFrame:
    """What a file says of the genes of its sheet: the same ones in the same order, whatever they are called there."""
    if sheet.file is None or len(sheet.file.var) != len(sheet.genes):
        return pd.DataFrame(index=sheet.genes)
    return sheet.file.var


def _counts(sheet: Sheet, rows: np.ndarray, genes: pd.Index) -> Iterator[sp.csr_matrix]:
    """Counts of some cells, in ascending order, on some genes."""
    columns = sheet.genes.get_indexer(genes)
    start = 0
    for part in sheet.matrix:
        inside = rows[(rows >= start) & (rows < start + part.shape[0])] - start
        start += part.shape[0]
        taken = part[inside]
        if not np.array_equal(columns, np.arange(part.shape[1])):
            taken = taken[:, columns]
            taken.sort_indices()
        yield taken


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Annotation from several files; a column that is text in one and something else in another is text."""
    joined = pd.concat(tables)
    for name in joined.select_dtypes(object):
        joined[name] = pd.Categorical([text or None for text in as_text(joined[name])])
    return joined
