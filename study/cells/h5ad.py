"""One h5ad file: is it whole, and what is in it. Only what a study needs is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem, sparse_dataset

from study.cells.sheet import File, Sheet, named
from study.cells.unreadable import EXPECTED, check_file, missing_filters, opened, probe, said
from study.errors import InputError

NO_LAYER, RAW = "null", "raw"  # what data.layer calls X, and .raw where no layer is called so


@dataclass(frozen=True)
class Stored:
    """A matrix that stays in its file: CSR or dense; slices of its rows are read when they are asked for."""

    path: Path
    element: str
    shape: tuple[int, ...]

    def __getitem__(self, rows: slice) -> Any:
        """Read some consecutive rows; raise `InputError` if the file is broken there."""
        with opened(self.path) as file:
            element = file[self.element]
            if isinstance(element, h5py.Dataset):
                return element[rows]
            return sparse_dataset(element, should_cache_indptr=False)[rows]


def open_h5ad(path: Path, layer: str | None, matrix: bool = True) -> Sheet:
    """Read annotation of an h5ad file and find one matrix in it. Only a CSC matrix is read, for it has no rows to read.

    Parameters
    ----------
    path
        The file.
    layer
        Name of the layer to read; X if None.
    matrix
        Whether the matrix is wanted at all.

    Raises
    ------
    InputError
        If the file is missing, cannot be read, or is no h5ad. Where it lacks the layer, the sheet has no matrix.
    """
    check_file(path)
    probe(path)
    with opened(path) as file:
        if missing := [name for name in ("obs", "var") if name not in file]:
            raise InputError(f"{path}: is no h5ad, for it has no {' and no '.join(missing)}. {EXPECTED}")
        if not isinstance(file["obs"], h5py.Group):
            raise InputError(f"{path}: an anndata before 0.7 wrote it. Read it with anndata and write it again.")
        elements = _elements(file)
        chosen = elements.pop(layer or NO_LAYER, None)
        obs, unread = _frame(file, "obs")
        var, more = _frame(file, "raw/var" if chosen == "raw/X" else "var")
        values = _matrix(path, file[chosen]) if matrix and chosen else None
    shape = getattr(values, "shape", None)
    if values is not None and shape != (len(obs), len(var)):
        raise InputError(
            f"{path}: {named(layer)} has shape {shape}, expected {len(obs):,} cells x {len(var):,} genes. "
            "Write it again."
        )
    others = {name: partial(_read, path, element) for name, element in elements.items()}
    return Sheet(str(path), obs, pd.Index(var.index), values, others, var, unread | more, File(path, obs, var))


def _read(path: Path, element: str) -> Any:
    with opened(path) as file:
        return _matrix(path, file[element])


def _frame(file: h5py.File, name: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read obs or var; name its columns that cannot be read, and why. The index must be.

    Codes whose names lie elsewhere in the file, as converters from R leave them, get these.
    """
    unread: dict[str, str] = {}
    try:
        frame: pd.DataFrame = read_elem(file[name])
    except Exception:  # whatever one broken column provokes: the others may be whole
        frame, unread = _column_by_column(file[name])
    for key in [key for key in frame if pd.api.types.is_integer_dtype(frame[key])]:
        names = file.get(f"{name}/__categories/{key}", file.get(f"uns/{key}_categories"))
        codes = frame[key].to_numpy(dtype=np.int64, na_value=-1).clip(-1)  # R's missing integer is far below
        if isinstance(names, h5py.Dataset) and names.ndim == 1 and codes.max(initial=-1) < len(names):
            texts = names.asstr() if h5py.check_string_dtype(names.dtype) else names
            frame[key] = np.array([*map(str, texts[()]), None], dtype=object)[codes]
    part = name.rpartition("/")[2]
    return frame, {f"{part}[{key!r}]": why for key, why in unread.items()}


def _column_by_column(group: h5py.Group) -> tuple[pd.DataFrame, dict[str, str]]:
    index = pd.Index(read_elem(group[group.attrs["_index"]]))
    columns, unread = {}, {}
    for key in group.attrs["column-order"]:
        try:
            columns[key] = pd.Series(read_elem(group[key])).set_axis(index)  # a column of another length cannot be read
        except Exception as error:
            unread[key] = (missing_filters(group[key]) if key in group else "") or said(error)
    return pd.DataFrame(columns, index=index), unread


def _matrix(path: Path, element: h5py.Group | h5py.Dataset) -> Any:
    if isinstance(element, h5py.Dataset):
        return Stored(path, element.name, element.shape)
    if element.attrs.get("encoding-type") != "csr_matrix":
        whole = read_elem(element)
        if not hasattr(whole, "tocsr"):
            return whole
        whole.check_format(full_check=True)  # broken indices would crash, not raise
        return whole.tocsr()
    shape = sparse_dataset(element).shape
    indptr = element["indptr"]
    # What reading all of it would notice, and reading some rows would not.
    if len(indptr) != shape[0] + 1 or indptr[0] != 0:
        raise ValueError(f"indptr starts with {indptr[0]} and has {len(indptr)} values for {shape[0]} rows")
    return Stored(path, element.name, shape)


def _elements(file: h5py.File) -> dict[str, str]:
    """Return where the matrices of a file are, by the `data.layer` that names them."""
    found = {NO_LAYER: "X"} if "X" in file else {}
    found |= {RAW: "raw/X"} if "raw/X" in file and "raw/var" in file else {}
    return found | {name: f"layers/{name}" for name in file.get("layers", ())}
