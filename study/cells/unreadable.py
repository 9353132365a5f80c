"""Why a file cannot be read: not there, of another kind, held by another program, a missing filter, or broken."""

from __future__ import annotations

import errno
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
with h5py.File(sys.argv[1]) as file:
    dict(file.attrs)
    file.visititems(touch)
"""
PROBE_SECONDS = 300
EXPECTED = "Expected an h5ad file, as AnnData.write_h5ad writes it."


# Numbers of filters that files are compressed with, as the HDF Group registers them.
FILTERS = {32000: "LZF", 32001: "Blosc", 32004: "LZ4", 32008: "Bitshuffle", 32015: "Zstandard", 32026: "Blosc2"}
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


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
    command = [sys.executable, "-c", PROBE, str(path)]
    try:
        crashed = subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS, check=False).returncode < 0
    except subprocess.TimeoutExpired:
        crashed = True
    if crashed:
        raise InputError(f"{path}: is broken (the HDF5 library crashes on it). {EXPECTED} Copy or write it again.")


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a file; what goes wrong while it is read becomes one message that tells its cause."""
    try:
        with h5py.File(path) as file:
            yield file
    except InputError:
        raise
    except Exception as error:  # whatever broken bytes provoke in HDF5 and anndata
        raise InputError(f"{path}: {cause(path, error)}") from error


def _other_kind(path: Path, file: h5py.File) -> str | None:
    """Say that a file is one of the other kinds that single cells come in, and how to make an h5ad of it."""
    if "mod" in file and "obs" in file:
        modalities = list(file["mod"])
        rna = next(
            (name for name in modalities if name.lower() in ("rna", "gex")), modalities[0] if modalities else "rna"
        )
        return (
            f"is MuData (h5mu) with {few(modalities)}. Write the modality with RNA counts as h5ad: "
            f"`mudata.read_h5mu('{path.name}').mod['{rna}'].write_h5ad('{path.stem}.h5ad')`."
        )
    groups = [name for name, item in file.items() if isinstance(item, h5py.Group) and "barcodes" in item]
    if groups and "obs" not in file:
        return (
            f"is a matrix of 10x Cell Ranger. Write it as h5ad: `a = scanpy.read_10x_h5('{path.name}'); "
            f"a.var_names_make_unique(); a.write_h5ad('{path.stem}.h5ad')`, with the labels and the dataset in a.obs."
        )
    if "row_attrs" in file and "col_attrs" in file:
        return (
            f"is a loom file. Write it as h5ad: `anndata.io.read_loom('{path.name}').write_h5ad('{path.stem}.h5ad')`."
        )
    return None


def cause(path: Path, error: Exception) -> str:
    """Say why a file could not be read, and what to do."""
    number = getattr(error, "errno", None)
    if number in NO_LOCKS:
        return (
            f"cannot be locked ({said(error)}): its file system has no locks. Set HDF5_USE_FILE_LOCKING=FALSE in the "
            "environment, or copy the file to a local disk."
        )
    if number in (errno.EAGAIN, errno.EACCES) or "unable to lock file" in str(error):
        return (
            "is open for writing in another program (HDF5 locks it). Close it there, such as by ending the notebook "
            "that opened it with backed='r+', and try again."
        )
    if isinstance(error, MemoryError):
        return "does not fit in memory. Write its matrix as CSR or dense, of which some rows are read at a time."
    if missing := _missing_filters(path):
        return (
            f"is compressed with {few(missing)}, which HDF5 cannot read here. `pip install hdf5plugin` brings it "
            "(into this environment, and those of all workers); or write the file again with compression='gzip'."
        )
    return f"is broken or truncated ({said(error)}). {EXPECTED} Copy or write it again."


def said(error: Exception) -> str:
    """Return what an error says, on one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _missing_filters(path: Path) -> list[str]:
    """Name the filters that parts of a file need and that are not here."""
    missing: set[int] = set()

    def look(_: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            plist = item.id.get_create_plist()
            codes = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
            missing.update(code for code in codes if not h5py.h5z.filter_avail(code))

    with suppress(OSError, RuntimeError, KeyError), h5py.File(path) as file:  # a broken one has told its cause already
        file.visititems(look)
    return [FILTERS.get(code, f"filter {code}") for code in sorted(missing)]
