"""Raw counts: recognise them, say what is there instead, and restore them where that is exact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from study.cells.chunks import slices

# Above this a float32 no longer holds every integer.
LARGEST_COUNT = 2**24
LARGEST_LOG = 30  # e**30 counts in a cell: larger values are no logarithms
# How far a restored value may lie from an integer: float32 logarithms of counts up to 50,000 stay within it.
TOLERANCE = 0.05
# Counts that were divided and multiplied again, or stored as text, are off by less than this.
ROUNDING = 1e-3
# With fewer genes than this in a cell, all its counts could share a divisor, and "the smallest is 1" be wrong.
GENES_TO_RESTORE = 5
NAME_THE_LAYER = "Expected raw counts; name the layer that has them with data.layer=..., or count again."


@dataclass(frozen=True)
class CountMatrix:
    """A matrix as canonical CSR matrices of some rows each, made anew whenever it is gone through.

    Attributes
    ----------
    matrix
        Anything with a shape of which rows can be sliced.
    restored
        Whether log1p of its values is undone (see `restore`).
    rounded
        Whether values are rounded to whole numbers.
    size
        Number of its values other than 0, where it is known.
    """

    matrix: Any
    restored: bool = False
    rounded: bool = False
    size: int = 0

    def __iter__(self) -> Iterator[sp.csr_matrix]:
        """Go through the rows; raise `ValueError` as `as_csr` does."""
        for rows in slices(*self.matrix.shape):
            part = as_csr(self.matrix[rows])
            part = restore(part).counts if self.restored else part
            if self.rounded:
                part.data = np.rint(part.data)
                part.eliminate_zeros()
            yield part


def as_csr(matrix: Any) -> sp.csr_matrix:
    """Return any matrix as a canonical CSR matrix (sorted indices, no duplicates, no stored zeros) of floats.

    It may share memory with the matrix and change its order there.

    Raises
    ------
    ValueError
        If the matrix is not numeric, or its sparse structure is broken.
    """
    dtype: Any = getattr(matrix, "dtype", None)
    if dtype is None or dtype.kind not in "biuf":
        raise ValueError(f"it is of type {dtype or type(matrix).__name__}, no matrix of numbers")
    if hasattr(matrix, "check_format"):  # sparse
        matrix.check_format(full_check=True)  # broken indices would crash, not raise, later
    # Float32 would round large integers before they are checked.
    csr = sp.csr_matrix(matrix, dtype=np.float32 if dtype.itemsize <= 2 or dtype == np.float32 else np.float64)
    csr.sum_duplicates()
    csr.eliminate_zeros()
    return csr


@dataclass(frozen=True)
class Judged:
    """What values are: why no raw counts and what to do (None if they are), how many, how many need rounding."""

    problem: str | None
    size: int
    rounded: int = 0


def judge(counts: Iterable[sp.csr_matrix], alias: Callable[[], str | None] = lambda: None) -> Judged:
    """Judge whether values are raw counts: non-negative integers, if only after rounding by `ROUNDING`.

    Parameters
    ----------
    counts
        Canonical CSR matrices of some rows each, shape (n_cells, n_genes) together; can be gone through repeatedly.
    alias
        Asked where values look like log1p of counts: which other matrix holds the same values, if X and a layer do.
    """
    size, least, greatest = 0, np.inf, -np.inf
    broken, negative, fractional, uneven = _Kind(), _Kind(), _Kind(), _Kind()
    for part in counts:
        values = part.data
        finite = np.isfinite(values)
        broken.add(values, ~finite)
        negative.add(values, values < 0)
        with np.errstate(invalid="ignore"):  # infinite ones are told of before
            off = np.abs(values - np.rint(values))
        fractional.add(values, off > ROUNDING)
        uneven.add(values, off > 0)
        size += values.size
        least, greatest = min(least, values.min(initial=np.inf)), max(greatest, values.max(initial=-np.inf))
    return Judged(
        _problem(counts, alias, size, (least, greatest), (broken, negative, fractional, uneven)), size, uneven.number
    )


def _problem(
    counts: Iterable[sp.csr_matrix],
    alias: Callable[[], str | None],
    size: int,
    limits: tuple[float, float],
    kinds: tuple[_Kind, ...],
) -> str | None:
    (least, greatest), (broken, negative, fractional, uneven) = limits, kinds
    if broken.number:
        return (
            f"has {broken.number:,} values that are not finite (such as {broken.example}). "
            "Expected counts; count again."
        )
    if size == 0:
        return "holds no value above 0. Expected counts of molecules or reads."
    if negative.number and least < -ROUNDING:
        return (
            f"has negative values (such as {least:g}; {negative.number / size:.1%} of those other than 0), as after "
            "scaling to unit variance. Expected non-negative integers; name the layer with raw counts, data.layer=..."
        )
    odd = uneven if greatest < 0.5 else fractional  # all of them would be rounded to 0
    if odd.number:
        share = f"{odd.number / size:.1%} of those above 0"
        found = f"has values that are no integers (such as {odd.example:.6g}; {share})."
        looks_like = _normalised(counts, alias) if greatest <= LARGEST_LOG else None
        return f"{found} {looks_like or NAME_THE_LAYER}"
    if greatest > LARGEST_COUNT:
        return f"has a value of {greatest:.0f}; a count above {LARGEST_COUNT:,} is none, and float32 cannot hold it."
    return None


@dataclass
class _Kind:
    """How many values are of some kind, and the first of them."""

    number: int = 0
    example: Any = None

    def add(self, values: np.ndarray, mine: np.ndarray) -> None:
        number = int(mine.sum())
        if number and not self.number:
            self.example = values[mine.argmax()]
        self.number += number


def _normalised(counts: Iterable[sp.csr_matrix], alias: Callable[[], str | None]) -> str | None:
    """Say that values look like log1p, and the way back from it; None if they do not."""
    total = normalised_to(counts)
    exact = np.concatenate([restore(part).exact for part in counts])
    filled = np.concatenate([np.diff(part.indptr) > 0 for part in counts])
    if total is None and exact[filled].mean() < 0.5:
        return None
    message = f"These look like log1p of counts normalised to {'one total' if total is None else f'{total:,.0f}'}"
    if same := alias():
        message += (
            f", and {same} holds the same: usually `a.X = a.layers['counts']` followed by `normalize_total` and "
            "`log1p`, which overwrites the layer, because both names hold the same matrix. Write "
            "`a.X = a.layers['counts'].copy()` and make the file again"
        )
    else:
        message += ". Expected raw counts: name what has them with data.layer=..., or make the file again"
    if exact.all():
        return f"{message}; or restore the counts with data.restore_counts=true, which is exact for every cell here."
    return f"{message}. Restoring is not exact for {(~exact).sum():,} of {exact.size:,} cells, so it is refused."


def normalised_to(counts: Iterable[sp.csr_matrix]) -> float | None:
    """Return the one total that all cells have after undoing log1p, or None if there is none."""
    parts = []
    for part in counts:
        if not _may_be_logs(part):
            return None
        parts.append(np.asarray(_undo_log(part).sum(axis=1)).ravel())
    totals = np.concatenate(parts)
    totals = totals[totals > 0]
    middle = float(np.median(totals))
    constant = np.mean(np.abs(totals / middle - 1) < 1e-3) > 0.99
    return middle if constant and len(totals) > 1 else None


@dataclass(frozen=True)
class Restored:
    """Counts restored from log1p values, and for which cells that is exact."""

    counts: sp.csr_matrix
    exact: np.ndarray


def restore(counts: sp.csr_matrix) -> Restored:
    """Undo log1p and normalisation, taking the smallest value of each cell for one count.

    Every value of a cell must then be an integer; where one is not, or where the cell has too few genes to tell,
    the cell is marked as not exact. Cells without any count stay so.

    Parameters
    ----------
    counts
        Canonical CSR matrix of log1p values, shape (n_cells, n_genes).
    """
    if not _may_be_logs(counts):
        return Restored(counts, np.zeros(counts.shape[0], dtype=bool))
    linear = _undo_log(counts)
    detected = np.diff(linear.indptr)
    filled = np.flatnonzero(detected)
    if not filled.size:
        return Restored(counts, np.ones(counts.shape[0], dtype=bool))
    starts = linear.indptr[filled]
    ratio = linear.data / np.repeat(np.minimum.reduceat(linear.data, starts), detected[filled])
    whole = np.rint(ratio)
    worst = np.zeros(linear.shape[0])
    worst[filled] = np.maximum.reduceat(np.abs(ratio - whole), starts)
    exact = (worst <= TOLERANCE) & ((detected >= GENES_TO_RESTORE) | (detected == 0))
    linear.data = whole
    return Restored(linear, exact)


def _may_be_logs(counts: sp.csr_matrix) -> bool:
    return bool(counts.data.max(initial=0) <= LARGEST_LOG and counts.data.min(initial=0) >= 0)


def _undo_log(counts: sp.csr_matrix) -> sp.csr_matrix:
    return counts.astype(np.float64).expm1()
