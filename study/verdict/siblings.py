"""Classes that are confused with each other more than with all others: labels that could be put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

import numpy as np
import numpy.typing as npt
import pandas as pd

# Fewer cells confused with each other than this share are no reason to give up a distinction.
WORTH = 0.05
# So many times more often, or a group of nearly all classes would always have most confusions inside.
CLEARLY = 2
MOST_NAMED = 3

Floats = npt.NDArray[np.float64]


def siblings(counts: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return groups of classes that could be put together, by the name each could have.

    Parameters
    ----------
    counts
        Cells by true (rows) and called class (columns), the same classes in the same order.

    Notes
    -----
    Two classes are confused by the mean of two shares: of the cells of either that are called the other. So a small
    class counts as much as a large one, as in macro recall. The most confused classes are joined, as if they were one,
    until none are by `WORTH` or two are left. Of all groups on the way the largest are taken in which every class is
    confused with the others of its group more than with all classes outside (a community in the strong sense,
    Radicchi et al. 2004), and `CLEARLY` more often with one of them than with one outside.
    """
    names = list(counts.index)
    confused = _confused(counts.to_numpy(dtype=float))
    found: list[list[int]] = []
    for group in reversed(_joined(counts.to_numpy(dtype=float))):
        if not any(set(group) & set(other) for other in found) and _apart(confused, group):
            found.append(group)
    groups = [tuple(names[place] for place in group) for group in sorted(found)]
    return {common_name(group): group for group in groups}


def _confused(matrix: Floats) -> Floats:
    """Return how much classes are confused with each other, shape (n_classes, n_classes), 0 with themselves."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    confused: Floats = (shares + shares.T) / 2
    return confused


def _joined(matrix: Floats) -> list[list[int]]:
    """Return the groups that come of joining the most confused ones, in this order, each with its classes in order."""
    matrix, groups, joined = matrix.copy(), [[place] for place in range(len(matrix))], []
    while len(groups) > 2:
        confused = _confused(matrix)
        kept, gone = sorted(divmod(int(confused.argmax()), len(groups)))
        if confused[kept, gone] < WORTH:
            break
        groups[kept] = sorted(groups[kept] + groups.pop(gone))
        joined.append(groups[kept])
        for axis in (0, 1):
            along = np.moveaxis(matrix, axis, 0)
            along[kept] += along[gone]
            matrix = np.delete(matrix, gone, axis)
    return joined


def _apart(confused: Floats, group: Sequence[int]) -> bool:
    """Whether each class of a group is confused with the others of it more than with all that are outside."""
    within = confused[np.ix_(group, group)].sum(axis=1)
    beyond = np.delete(confused[group], group, axis=1)
    one_of_group = within / (len(group) - 1)
    return bool(np.all((within > beyond.sum(axis=1)) & (one_of_group >= CLEARLY * beyond.mean(axis=1))))


def common_name(names: Sequence[str]) -> str:
    """Join names, with the words that all begin or end with only once: 'CD4 T' and 'CD8 T' give 'CD4 / CD8 T'."""
    if len(names) > MOST_NAMED:
        return f"{names[0]} and {len(names) - 1} more"
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
