"""One h5ad file: is it whole, and what is in it. Only what a study needs is read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
from anndata.io import read_elem, sparse_dataset

from study.cells.sheet import File, Sheet, named
from study.errors import InputError, nearest

# Touches all that a broken file can crash HDF5 with (its attributes and strings); run in a process of its own.
PROBE = """
import sys, h5py
def touch(name, item):
    dict(item.attrs)
    if isinstance(item, h5py.Dataset) and item.dtype.kind == "O":
        item[()]
with h5py.File(sys.argv[1]) as file:
    dict(file.attrs)
    file.visititems(touch)
"""
PROBE_SECONDS = 300
EXPECTED = "Expected an h5ad file, as AnnData.write_h5ad writes it."


@dataclass(frozen=True)
class Stored:
    """A matrix that stays in its file: CSR or dense; slices of its rows are read when they are asked for."""

    path: Path
    element: str
    shape: tuple[int, ...]

    def __getitem__(self, rows: slice) -> Any:
        """Read some consecutive rows; raise `InputError` if the file is broken there."""
        with _opened(self.path) as file:
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
        If the file is missing, cannot be read, is no h5ad, or lacks the layer.
    """
    check_file(path)
    _probe(path, path.stat().st_mtime_ns)
    with _opened(path) as file:
        if missing := [name for name in ("obs", "var") if name not in file]:
            raise InputError(f"{path}: is no h5ad, for it has no {' and no '.join(missing)}. {EXPECTED}")
        if not isinstance(file["obs"], h5py.Group):
            raise InputError(f"{path}: an anndata before 0.7 wrote it. Read it with anndata and write it again.")
        obs, var = read_elem(file["obs"]), read_elem(file["var"])
        values = _matrix(path, _element(file, layer, path)) if matrix else None
        layers = tuple(file.get("layers", ()))
    shape = getattr(values, "shape", None)
    if matrix and shape != (len(obs), len(var)):
        raise InputError(
            f"{path}: {named(layer)} has shape {shape}, expected {len(obs):,} cells x {len(var):,} genes. "
            "Write it again."
        )
    return Sheet(str(path), obs, pd.Index(var.index), values, layers, File(path, obs, var))


def check_file(path: Path) -> None:
    """Raise `InputError` unless a file is there, can be read, and is HDF5."""
    try:
        there = path.exists()
    except OSError as error:  # a folder that may not be searched, or a name that is too long
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
    if not there:
        beside = [p.name for p in sorted(path.parent.glob("*.h5ad"))] if path.parent.is_dir() else []
        raise InputError(f"{path}: no such file.{nearest(path.name, beside)} {EXPECTED}")
    if not path.is_file():
        raise InputError(f"{path}: is a folder. {EXPECTED}")
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
    if not start:
        raise InputError(f"{path}: is empty (0 bytes). {EXPECTED}")
    if not h5py.is_hdf5(path):
        raise InputError(f"{path}: is no h5ad (it starts with {start!r}, which is not HDF5). {EXPECTED}")


@cache
def _probe(path: Path, _modified: int) -> None:
    """Refuse a file that would crash or hang this process; errors that can be caught are left to its reading."""
    command = [sys.executable, "-c", PROBE, str(path)]
    try:
        crashed = subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS, check=False).returncode < 0
    except subprocess.TimeoutExpired:
        crashed = True
    if crashed:
        raise InputError(f"{path}: is broken (the HDF5 library crashes on it). {EXPECTED} Copy or write it again.")


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open a file; what goes wrong while it is read becomes one message."""
    try:
        with h5py.File(path) as file:
            yield file
    except InputError:
        raise
    except Exception as error:  # whatever broken bytes provoke in HDF5 and anndata
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(f"{path}: is broken or truncated ({found}). {EXPECTED} Copy or write it again.") from error


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


def _element(file: h5py.File, layer: str | None, path: Path) -> h5py.Group | h5py.Dataset:
    layers = list(file.get("layers", {}))
    if layer is None and "X" in file:
        return file["X"]
    if layer is not None and layer in layers:
        return file["layers"][layer]
    missing = "no X" if layer is None else f"no layer {layer!r} (data.layer).{nearest(layer, layers)}"
    has = ", ".join([*(["X (data.layer=null)"] if "X" in file else []), *map(repr, layers)])
    raise InputError(f"{path}: has {missing} It has: {has or 'no matrix'}. Choose one with data.layer=...")
