"""Matrices that may be larger than memory: some rows at a time, and put together in files instead."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile, gettempdir
from typing import IO

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from study.errors import InputError

VALUES = 2**24  # of a chunk, zeros included: 128 MiB where a file holds it dense and in float64
DATA = np.dtype("<f4")
MOST = np.iinfo(np.int32).max  # values of a CSR matrix with int32 index arrays


def slices(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Cut the rows of a matrix into chunks of about the same size."""
    step = max(1, VALUES // max(1, n_columns))
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


@dataclass(frozen=True)
class Rows:
    """Some rows of a canonical CSR matrix, in this order; they are copied only while they are gone through.

    Attributes
    ----------
    matrix
        Shape (any number of rows, n_columns).
    rows
        Row numbers, shape (n,).
    """

    matrix: sp.csr_matrix
    rows: np.ndarray

    @classmethod
    def all(cls, matrix: sp.csr_matrix) -> Rows:
        """Return all rows of a matrix."""
        return cls(matrix, np.arange(matrix.shape[0]))

    @property
    def sizes(self) -> np.ndarray:
        """Number of stored values of each row, shape (n,)."""
        indptr = self.matrix.indptr
        sizes: np.ndarray = indptr[self.rows + 1] - indptr[self.rows]
        return sizes

    def __iter__(self) -> Iterator[sp.csr_matrix]:
        """Go through the rows, a canonical CSR matrix of some of them at a time."""
        for part in slices(len(self.rows), self.matrix.shape[1]):
            yield self.matrix[self.rows[part]]


def assemble(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, n_columns: int) -> sp.csr_matrix:
    """Return a CSR matrix over canonical arrays without copying or touching them (they may be read-only)."""
    matrix = sp.csr_matrix((len(indptr) - 1, n_columns), dtype=data.dtype)
    # Not through the constructor: it would copy where it prefers another index type.
    matrix.data, matrix.indices, matrix.indptr = data, indices, indptr
    matrix.has_sorted_indices = matrix.has_canonical_format = True
    return matrix


def pointers(sizes: np.ndarray) -> np.ndarray:
    """Return where each row starts and the last ends, in the type that both index arrays of a CSR matrix have then.

    They must agree: scipy converts the whole of one that does not, each time that some rows are taken.
    """
    ends = np.cumsum(sizes, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    return np.concatenate([[0], ends]).astype(np.int32 if total <= MOST else np.int64)


def write(parts: Iterable[sp.csr_matrix], data: IO[bytes], indices: IO[bytes], index: npt.DTypeLike) -> np.ndarray:
    """Write values and column numbers of CSR matrices one after the other; return the number of values of each row."""
    sizes = [np.array([], dtype=np.int64)]
    for part in parts:
        data.write(part.data.astype(DATA, copy=False).data)
        indices.write(part.indices.astype(index, copy=False).data)
        sizes.append(np.diff(part.indptr))
    return np.concatenate(sizes)


def spool(parts: Iterable[sp.csr_matrix], n_columns: int, size: int = 0) -> sp.csr_matrix:
    """Put the rows of canonical CSR matrices together in temporary files without names, as float32.

    Parameters
    ----------
    parts
        The matrices.
    n_columns
        Their number of columns.
    size
        How many values they have at most, if it is known: where there is no room, it says how much is needed.

    Returns
    -------
    A matrix over the read-only, memory-mapped files: the system may take their memory back at any time, and they are
    gone with the matrix. They are in the folder for temporary files (TMPDIR).

    Raises
    ------
    InputError
        If there is no room for them.
    """
    with _room(size), TemporaryFile() as data, TemporaryFile() as indices, TemporaryFile() as wide:
        indptr = pointers(write(parts, data, indices, np.int32))
        narrow = _mapped(indices, np.int32)
        if indptr.dtype != np.int32:
            for part in slices(len(narrow), 1):
                wide.write(narrow[part].astype(np.int64).data)
            narrow = _mapped(wide, np.int64)
        return assemble(_mapped(data, DATA), narrow, indptr, n_columns)


@contextmanager
def _room(size: int) -> Iterator[None]:
    """Say where there is no room for temporary files of so many values, and how to name another place."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        folder = gettempdir()
        needed = size * (DATA.itemsize + (4 if size <= MOST else 12)) / 2**20
        raise InputError(
            f"{folder}: no room for the counts while they are prepared ({error.strerror})."
            f"{f' They need up to {needed:,.1f} MiB.' if size else ''} Make room, or name another folder for temporary "
            "files with TMPDIR=... before the command."
        ) from error


def _mapped(file: IO[bytes], dtype: npt.DTypeLike) -> np.ndarray:
    file.flush()
    if file.tell() == 0:  # nothing cannot be mapped
        return np.empty(0, dtype=dtype)
    # As a plain array: a memmap would be copied by whatever asks for exactly an ndarray.
    return np.asarray(np.memmap(file, dtype=dtype, mode="r"))
