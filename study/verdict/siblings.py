"""Classes that are confused with each other more than with all others: labels that could be put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, takewhile

import numpy as np
import pandas as pd

# Of the cells of both classes: fewer confusions than this are no reason to give up a distinction.
WORTH = 0.05


def siblings(counts: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return groups of classes that could be put together, by the name each could have.

    The two classes that are most confused with each other are put together if that is more than both are confused
    with all others, and at least `WORTH` of their cells; then the same is asked of what is left, down to two classes.

    Parameters
    ----------
    counts
        Cells by true (rows) and called class (columns), the same classes in the same order.
    """
    groups: list[tuple[str, ...]] = [(name,) for name in counts.index]
    matrix = counts.to_numpy(dtype=float)
    while len(groups) > 2 and (pair := _closest(matrix)):
        kept, gone = pair
        groups[kept] += groups.pop(gone)
        for axis in (0, 1):
            along = np.moveaxis(matrix, axis, 0)
            along[kept] += along[gone]
            matrix = np.delete(matrix, gone, axis)
    return {common_name(group): group for group in groups if len(group) > 1}


def _closest(matrix: np.ndarray) -> tuple[int, int] | None:
    """Return the two classes most confused with each other, where that is reason enough; the first comes first."""
    wrong = matrix.sum(axis=1) - np.diag(matrix)
    found: dict[tuple[int, int], float] = {}
    for one, other in combinations(range(len(matrix)), 2):
        between = matrix[one, other] + matrix[other, one]
        cells = matrix[[one, other]].sum()
        if cells and between / cells >= WORTH and between > wrong[one] + wrong[other] - between:
            found[one, other] = between / cells
    return max(found, key=lambda pair: found[pair]) if found else None


def common_name(names: Sequence[str]) -> str:
    """Join names, with the words that all begin or end with only once: 'CD4 T' and 'CD8 T' give 'CD4 / CD8 T'."""
    words = [name.split() for name in names]
    first = _common(words)
    last = _common([one[len(first) :][::-1] for one in words])[::-1]
    middle = [" ".join(one[len(first) : len(one) - len(last)]) for one in words]
    return " ".join([*first, " / ".join(part for part in middle if part), *last]).strip()


def _common(words: Sequence[Sequence[str]]) -> list[str]:
    """Return the words that all lists begin with."""
    places = takewhile(lambda here: len(set(here)) == 1, zip(*words, strict=False))
    return [here[0] for here in places]


def labels_of(groups: Mapping[str, Sequence[str]], merged: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return `data.labels` that puts groups together, whose classes may have been put together before.

    Parameters
    ----------
    groups
        Classes, by the name of their group.
    merged
        `data.labels` as it is: labels of the data, by the class that they were put into.
    """
    said = {name: [label for one in group for label in merged.get(one, (one,))] for name, group in groups.items()}
    kept = {
        name: list(labels) for name, labels in merged.items() if not any(name in group for group in groups.values())
    }
    return kept | said
