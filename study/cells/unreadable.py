"""Why a file cannot be read: not there, of another kind, held by another program, a missing filter, or broken."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path

import h5py

from study.errors import InputError, few, nearest

with suppress(ImportError):  # brings the filters of Blosc, Zstandard and others, where it is installed
    import_module("hdf5plugin")

# Touches all that a broken file can crash HDF5 with (its attributes and strings); run in a process of its own.
PROBE = """
import sys, h5py
def touch(name, item):
    dict(item.attrs)
    if isinstance(item, h5py.Dataset) and item.dtype.kind == "O":
        item[()]
try:
    file = h5py.File(sys.argv[1])
except OSError as error:
    if str(error.errno) not in sys.argv[2:]:
        raise
    file = h5py.File(sys.argv[1], locking=False)
dict(file.attrs)
file.visititems(touch)
"""
PROBE_SECONDS, PROBE_BYTES = 30, 10e6  # it may take so long, and a second more for each of so many bytes
EXPECTED = "Expected an h5ad file, as AnnData.write_h5ad writes it."
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # what file systems without locks answer
UNREACHED = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENXIO}
# Numbers of filters that files are compressed with, as the HDF Group registers them.
FILTERS = {307: "bzip2", 32000: "LZF", 32001: "Blosc", 32004: "LZ4", 32008: "Bitshuffle", 32015: "Zstandard"}
FILTERS |= {32013: "ZFP", 32026: "Blosc2"}
# How files of other kinds start, and the way from them to an h5ad.
STARTS = {
    b"\x1f\x8b": "is compressed as a whole (gzip). Unpack it with gunzip; an R object (.rds) must be converted in R.",
    b"PK": "is a zip archive. Unpack it.",
    b"%%Matr": "is a Matrix Market file. Read its folder with scanpy.read_10x_mtx and write it with write_h5ad.",
}


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
        zarr = any((path / name).exists() for name in (".zgroup", "zarr.json"))
        written = f" Write it as one: `anndata.io.read_zarr({str(path)!r}).write_h5ad('{path.stem}.h5ad')`."
        raise InputError(f"{path}: is {'a zarr store' if zarr else 'a folder'}. {EXPECTED}{written if zarr else ''}")
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
    if not start:
        raise InputError(f"{path}: is empty (0 bytes). {EXPECTED}")
    if not h5py.is_hdf5(path):
        kind = next((text for bytes_, text in STARTS.items() if start.startswith(bytes_)), None)
        raise InputError(f"{path}: {kind or f'is no h5ad (it starts with {start!r}, which is not HDF5).'} {EXPECTED}")


def probe(path: Path) -> None:
    """Refuse a file that is of another kind, or would crash or hang this process.

    Raises
    ------
    InputError
        If it is. Errors that can be caught are left to its reading.
    """
    _whole(path, path.stat().st_mtime_ns)
    with opened(path) as file:
        if kind := _other_kind(path, file):
            raise InputError(f"{path}: {kind}")


@cache
def _whole(path: Path, _modified: int) -> None:
    """Refuse a file that would crash or hang this process; errors that can be caught are left to its reading."""
    command = [sys.executable, "-c", PROBE, str(path), *map(str, NO_LOCKS)]
    seconds = PROBE_SECONDS + path.stat().st_size / PROBE_BYTES
    try:
        crashed = subprocess.run(command, capture_output=True, timeout=seconds, check=False).returncode < 0
    except subprocess.TimeoutExpired:
        crashed = True
    if crashed:
        raise InputError(
            f"{path}: is broken (the HDF5 library crashes or hangs on it). {EXPECTED} Copy or write it again."
        )


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a file; what goes wrong while it is read becomes one message that tells its cause."""
    try:
        with _open(path) as file:
            yield file
    except InputError:
        raise
    except Exception as error:  # whatever broken bytes provoke in HDF5 and anndata
        raise InputError(f"{path}: {cause(path, error)}") from error


def _open(path: Path) -> h5py.File:
    """Open a file, without a lock where its file system has none: nobody else can hold it there, and nor need we."""
    try:
        return h5py.File(path)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return h5py.File(path, locking=False)


def _other_kind(path: Path, file: h5py.File) -> str | None:
    """Say that a file is one of the other kinds that single cells come in, and how to make an h5ad of it."""
    to = f"{path.stem}.h5ad"
    if "mod" in file and isinstance(file["mod"], h5py.Group):
        names = list(file["mod"])
        rna = next((name for name in names if name.lower() in ("rna", "gex")), "rna")
        return (
            f"is MuData (h5mu) with the modalities {few(names)}. Write that with the counts of RNA as h5ad: "
            f"`import mudata; mudata.read_h5mu({str(path)!r}).mod[{rna!r}].write_h5ad({to!r})`."
        )
    groups = [name for name, item in file.items() if isinstance(item, h5py.Group) and "barcodes" in item]
    if groups and "obs" not in file:
        return (
            f"is a matrix of 10x Cell Ranger. Write it as h5ad: `import scanpy; a = scanpy.read_10x_h5({str(path)!r}); "
            f"a.var_names_make_unique(); a.write_h5ad({to!r})`, with the labels and the dataset in a.obs."
        )
    if "row_attrs" in file and "col_attrs" in file:
        return (
            f"is a loom file. Write it as h5ad: `import anndata; anndata.io.read_loom({str(path)!r})"
            f".write_h5ad({to!r})`."
        )
    return None


def cause(path: Path, error: Exception) -> str:
    """Say why a file could not be read, and what to do."""
    number, text = _number(error), str(error)
    if "file consistency flags" in text or "already open for write" in text:
        return (
            "is open for writing, or the program that wrote it did not close it. Close it there, such as by ending the "
            f"notebook; if nothing has it open, it may be incomplete: write it again, or try `h5clear -s {path}`."
        )
    if number == errno.EAGAIN or "unable to lock file" in text:
        return (
            "is open for writing in another program (HDF5 locks it). Close it there, such as by ending the notebook "
            "that opened it with backed='r+', and try again."
        )
    if number in (errno.EACCES, errno.EPERM):
        return f"cannot be read ({os.strerror(number)}). Check its permissions."
    if number in UNREACHED:
        return f"cannot be read from its disk ({os.strerror(number)}). Try again, or copy it to a local disk."
    if isinstance(error, MemoryError):
        return "does not fit in memory. Write its matrix as CSR or dense, of which some rows are read at a time."
    with suppress(Exception), _open(path) as file:  # if it is broken, that is the cause
        if missing := missing_filters(file):
            return f"is {missing} Or write it again with compression='gzip'."
    return f"is broken or truncated ({said(error)}). {EXPECTED} Copy or write it again."


def said(error: Exception) -> str:
    """Return what an error says, on one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _number(error: Exception) -> int | None:
    """The number of the system's error: of an `OSError`, or in what HDF5 says."""
    found = re.search(r"errno = (\d+)", str(error))
    number: int | None = getattr(error, "errno", None)
    return int(found[1]) if number is None and found else number


def missing_filters(part: h5py.Group | h5py.Dataset) -> str:
    """Name the filters that part of a file is compressed with and that are not here; nothing if there are none."""
    missing: set[int] = set()

    def look(_: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            plist = item.id.get_create_plist()
            codes = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
            missing.update(code for code in codes if not h5py.h5z.filter_avail(code))

    look("", part)
    if isinstance(part, h5py.Group):
        part.visititems(look)
    if not missing:
        return ""
    names = " and ".join(FILTERS.get(code, f"filter {code}") for code in sorted(missing))
    return f"compressed with {names}, which HDF5 cannot read here. `pip install hdf5plugin` brings what reads it."
