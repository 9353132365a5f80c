"""Prepared cells: reference and one query as plain arrays, and their checksummed files."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.lib import format as npy

from study import files
from study.cells.chunks import DATA, Rows, assemble, pointers, write
from study.cells.kept import FACTS
from study.errors import InputError

log = logging.getLogger(__name__)

SCHEMA = 1  # of prepared cells: raise it whenever the same sources would give other cells
STRUCTURE = ("data", "indices", "indptr")
ARRAYS = ("genes", "labels", "truth", "batch", "names", "origin")
WORDS = ("classes", "truth_classes", "batches")


@dataclass(frozen=True, eq=False)
class Annotation:
    """All that is known of cells but their counts.

    Attributes
    ----------
    genes
        Gene names, shape (n_genes,).
    classes
        Sorted labels that occur in the reference.
    labels
        Codes into `classes`, shape (n_reference,), int32; -1 where a reference cell has no label.
    truth
        Codes into `truth_classes`, shape (n_query,), int32; -1 where unknown.
    truth_classes
        `classes`, then the labels that only the query has.
    batches
        Sorted names of the batches that occur.
    batch
        Codes into `batches`, shape (n_reference + n_query,), int32.
    names
        Unique names of the cells, shape (n_reference + n_query,).
    origin
        Reference row that a query cell was copied from (twin `self`), shape (n_query,), int64; else -1.
    """

    genes: np.ndarray
    classes: tuple[str, ...]
    labels: np.ndarray
    truth: np.ndarray
    truth_classes: tuple[str, ...]
    batches: tuple[str, ...]
    batch: np.ndarray
    names: np.ndarray
    origin: np.ndarray

    @property
    def n_reference(self) -> int:
        """Number of reference cells."""
        return len(self.labels)

    @property
    def unlabelled(self) -> np.ndarray:
        """Reference rows without a label: they are trained on as query cells are, and never held out."""
        return np.flatnonzero(self.labels < 0)

    @property
    def n_query(self) -> int:
        """Number of query cells."""
        return len(self.truth)


@dataclass(frozen=True, eq=False)
class Cells(Annotation):
    """Reference and one query, prepared: reference rows first in file order, then query rows in one random order.

    Attributes
    ----------
    counts
        Raw counts, shape (n_reference + n_query, n_genes), float32 CSR, canonical.
    """

    counts: sp.csr_matrix

    def first(self, n: int | Literal["all"]) -> Cells:
        """Return the same with the first `n` query cells; counts are views of these, not copies.

        Raises
        ------
        InputError
            If there are fewer query cells.
        """
        if n == "all" or n == self.n_query:
            return self
        if not 0 <= n < self.n_query:
            raise InputError(
                f"query_cells={n}: the query has {self.n_query:,} cells. Expected at most these, or 'all'."
            )
        rows = self.n_reference + n
        batches, batch = recode(self.batches, self.batch[:rows])
        truth_classes, truth = recode(self.truth_classes, self.truth[:n], keep=len(self.classes))
        return replace(
            self,
            counts=prefix(self.counts, rows),
            truth=truth,
            truth_classes=truth_classes,
            batches=batches,
            batch=batch,
            names=self.names[:rows],
            origin=self.origin[:n],
        )

    def picked(self, reference: np.ndarray, query: np.ndarray) -> Cells:
        """Return some cells alone, by their numbers among reference and query; counts are copied."""
        rows = np.concatenate([reference, self.n_reference + query])
        batches, batch = recode(self.batches, self.batch[rows])
        truth_classes, truth = recode(self.truth_classes, self.truth[query], keep=len(self.classes))
        return replace(
            self,
            counts=self.counts[rows],
            labels=self.labels[reference],
            truth=truth,
            truth_classes=truth_classes,
            batches=batches,
            batch=batch,
            names=self.names[rows],
            origin=self.origin[query],
        )

    def without(self, name: str) -> Cells:
        """Return the same with the cells of a class of the reference moved behind the query; counts are copied."""
        left = self.labels != self.classes.index(name)
        order = np.concatenate(
            [np.flatnonzero(left), self.n_reference + np.arange(self.n_query), np.flatnonzero(~left)]
        )
        classes = tuple(one for one in self.classes if one != name)
        truth_classes = (*classes, name, *self.truth_classes[len(self.classes) :])
        codes = np.array([*(truth_classes.index(one) for one in self.truth_classes), -1], dtype=np.int32)
        rows = np.append(np.where(left, np.cumsum(left) - 1, -1), -1)  # the last for cells that are no copies
        n = int(np.count_nonzero(~left))
        return replace(
            self,
            counts=self.counts[order],
            classes=classes,
            labels=codes[self.labels[left]],
            truth=np.append(codes[self.truth], np.full(n, len(classes), dtype=np.int32)),
            truth_classes=truth_classes,
            batch=self.batch[order],
            names=self.names[order],
            origin=np.append(rows[self.origin], np.full(n, -1)),
        )

    def digest(self) -> str:
        """Return the sha256 of all that can change a training or an evaluation; names of cells are not."""
        digest = hashlib.sha256()
        sizes = [self.n_reference, self.n_query, len(self.batches)]
        words = [self.genes.tolist(), self.classes, self.truth_classes, sizes]
        digest.update(json.dumps(words).encode())
        counts = self.counts
        for array, dtype in [
            (counts.data, "<f4"),
            (counts.indices, "<i4"),
            (counts.indptr, "<i8"),
            (self.labels, "<i4"),
            (self.truth, "<i4"),
            (self.batch, "<i4"),
            (self.origin, "<i8"),
        ]:
            for start in range(0, len(array), 2**24):  # in parts, so that no second copy of the counts is made
                digest.update(np.ascontiguousarray(array[start : start + 2**24], dtype=dtype).data)
        return digest.hexdigest()


def class_names(cells: Mapping[str, Cells]) -> list[str]:
    """Return the names of all classes that the reference or some query has, sorted."""
    return sorted({name for one in cells.values() for name in one.truth_classes})


def prefix(counts: sp.csr_matrix, rows: int) -> sp.csr_matrix:
    """Return the first rows of a canonical CSR matrix as views of its arrays."""
    end = counts.indptr[rows]
    return assemble(counts.data[:end], counts.indices[:end], counts.indptr[: rows + 1], counts.shape[1])


def recode(words: tuple[str, ...], codes: np.ndarray, keep: int = 0) -> tuple[tuple[str, ...], np.ndarray]:
    """Drop the words that no code names, but for the first `keep`; return the words left and codes into them."""
    used = np.union1d(np.arange(keep), codes[codes >= 0])
    new = np.full(len(words) + 1, -1, dtype=np.int32)  # the last for codes of -1
    new[used] = np.arange(len(used))
    return tuple(words[code] for code in used), new[codes]


def save_cells(cells: Annotation, counts: Sequence[Rows], folder: Path, origin: Mapping[str, Any]) -> None:
    """Write cells as arrays with checksums; the file that names them comes last, so that a torn write is none.

    Parameters
    ----------
    cells
        What is known of them.
    counts
        Their counts, one part after the other; a chunk of them at a time is in memory.
    folder
        Where to write.
    origin
        What is kept of their sources.
    """
    indptr = pointers(np.concatenate([rows.sizes for rows in counts]))
    with ExitStack() as stack:
        paths = [stack.enter_context(files.writing(folder / f"counts_{part}.npy")) for part in ("data", "indices")]
        data, indices = (stack.enter_context(path.open("wb")) for path in paths)
        for file, dtype in ((data, DATA), (indices, indptr.dtype)):
            header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (int(indptr[-1]),)}
            npy.write_array_header_1_0(file, header)
        write(chain.from_iterable(counts), data, indices, indptr.dtype)
    arrays = {"counts_indptr": indptr, **{name: getattr(cells, name) for name in ARRAYS}}
    for name, array in arrays.items():
        with files.writing(folder / f"{name}.npy") as aside:
            np.save(aside, array, allow_pickle=False)
    names = [*(f"counts_{part}" for part in STRUCTURE), *ARRAYS]
    checksums = {name: files.sha256_of(folder / f"{name}.npy") for name in names}
    words = {name: list(getattr(cells, name)) for name in WORDS}
    facts = {"schema": SCHEMA, "files": checksums, "origin": dict(origin), **words}
    text = json.dumps({"sha256": _checksum(facts), **facts}, indent=1)
    files.write(folder / FACTS, text.encode())


def load_cells(folder: Path) -> Cells | None:
    """Read cells that `save` wrote, memory-mapped and read-only.

    Returns
    -------
    None if there are none, or if a checksum is wrong, which is logged as a warning.
    """
    if not (folder / FACTS).exists():
        return None
    try:
        facts = json.loads((folder / FACTS).read_bytes())
        broken = [] if facts.pop("sha256") == _checksum(facts) else [FACTS]
        broken += [name for name, digest in facts["files"].items() if files.sha256_of(folder / f"{name}.npy") != digest]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        broken = [str(error)]
    if broken:
        log.warning("%s: broken or incomplete (%s); these cells are prepared again.", folder, ", ".join(broken))
        return None
    # As plain arrays: a memmap would be copied by whatever asks for exactly an ndarray.
    arrays = {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in facts["files"]}
    data, indices, indptr = (arrays.pop(f"counts_{part}") for part in STRUCTURE)
    fields: dict[str, Any] = {**arrays, **{name: tuple(facts[name]) for name in WORDS}}
    return Cells(counts=assemble(data, indices, indptr, len(arrays["genes"])), **fields)


def _checksum(facts: dict[str, Any]) -> str:
    return files.sha256(json.dumps(facts, sort_keys=True).encode())


UNLABELLED = "Unknown"  # the category that scANVI keeps for cells without a label
