"""The columns of a table of runs: what was measured, what may be a cause, what is chance or only a name."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.errors import InputError

# What repeats a run without being a cause, and what only names one, as words in names of columns.
CHANCE = ("seed", "replicate", "fold", "repeat", "rep", "random_state")
NAMING = frozenset(
    ("run", "name", "trial", "id", "uuid", "index", "unnamed", "time", "date", "start", "end", "duration", "path",
     "file", "folder", "commit", "hash", "host", "key")
)  # fmt: skip
MEASURES = frozenset(("recall", "precision", "accuracy", "f1", "auroc", "auc", "ari", "nmi", "mcc"))
PARTS = ("recall", "precision", "heldout", "train", "query")
MOST_LEVELS = 5  # numbers of more levels count as a straight line
Floats = npt.NDArray[np.float64]


def is_outcome(name: str) -> bool:
    """Whether a column of a table of runs was measured, by its name."""
    words = re.split(r"[\W_]+", name.lower())
    return (name.split("/")[0].lower() in PARTS and "/" in name) or not MEASURES.isdisjoint(words)


def names_runs(name: str) -> bool:
    """Whether a column only tells runs apart, by its name."""
    words = set(re.split(r"[\W_]+", name.lower()))
    return not NAMING.isdisjoint(words)


def points_of(column: pd.Series, share: bool) -> Floats:
    """Return an outcome as numbers, of a share in points.

    Parameters
    ----------
    column
        The outcome.
    share
        Whether it is a share by its name: then shares and percentages in one column are refused.

    Raises
    ------
    InputError
        If a value is not finite, or nobody knows whether it is a share or a percentage.
    """
    values = numbers_of(column).to_numpy(float)
    if not np.isfinite(values).all():
        raise InputError(f"{column.name}: has a value that is not finite. Expected numbers; leave the run out.")
    if not share or column.astype(str).str.contains("%").any():
        return values
    small = values[values <= 1]
    if values.min() >= 0 and small.size and (values > 1.5).any() and np.median(small) > 0:
        raise InputError(
            f"{column.name}: has values of up to 1 (such as {small.max():g}) and larger ones (such as "
            f"{values.max():g}). Expected shares or percentages in one column, not both."
        )
    return values if np.abs(values).max(initial=0) > 1 else 100 * values


def causes_in(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return the columns that differ, those together that always change together."""
    found: dict[tuple[int, ...], list[str]] = {}
    for name in table:
        if str(name).lower() in CHANCE:
            continue
        codes = pd.factorize(table[name].astype(str))[0]
        if codes.max() > 0:
            found.setdefault(tuple(codes.tolist()), []).append(str(name))
    return [tuple(names) for names in found.values()]


def is_line(column: pd.Series) -> bool:
    """Whether a cause has so many numbers that it counts as a straight line."""
    return bool(numbers_of(column).notna().all()) and column.nunique() > MOST_LEVELS


def design_of(column: pd.Series) -> Floats:
    """Return a cause as columns of a design: one for each level but the first, or a line for many numbers."""
    if is_line(column):
        line = numbers_of(column).to_numpy(float)
        straight: Floats = (line - line.mean())[:, None] / (line.std() or 1.0)
        return straight
    found: Floats = pd.get_dummies(column.astype(str), drop_first=True, dtype=float).to_numpy()
    return found


def numbers_of(column: pd.Series) -> pd.Series:
    """Return a column as numbers, percent signs left out; NaN where a value is none."""
    return pd.to_numeric(column.astype(str).str.strip().str.removesuffix("%"), errors="coerce")
