"""Why a label wavers: disagreement of trainings split into training again, settings and data, by the study's strata.

A label is a table of ones and zeros, one for each class, over trials. Its variance over them is half of the share of
pairs of trials that disagree (Gini; Light & Margolin 1971, *An analysis of variance for categorical data*), so it
splits as the variance of any other outcome does: the same design, strata and mean squares as in the attribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from study.attribution import MIXED, Layout, chance_variances, effect_variances, layout_of, squares
from study.plan import Factor, Stratum

CHUNK = 4096  # cells
REPLICATE = "another seed and other held-out cells"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Wavering:
    """What the disagreement of trainings about cells comes from.

    Attributes
    ----------
    variances
        Unbiased variance from each source, shape (n_cells, n_sources); single ones can be negative, sums over many
        cells hardly are.
    sources
        Names of the sources: the causes that the design has (`data`, `parameter`, `data x parameter`), then training
        again: the strata of chance, and what replicates differ in.
    """

    variances: Floats
    sources: tuple[str, ...]

    def shares(self, group: npt.NDArray[np.intp] | None = None) -> Floats:
        """Return `again`, `settings` and `data` as shares, shape (n_cells or n_groups, 3); NaN where all agree.

        Parameters
        ----------
        group
            Number of the group of each cell, whose variances are then added up first; each cell alone if None.

        Notes
        -----
        What a setting does to one query only belongs half to the settings and half to the data.
        """
        found = self.variances
        if group is not None:
            found = np.zeros((int(group.max(initial=-1)) + 1, found.shape[1]))
            np.add.at(found, group, self.variances)
        parts = np.zeros((len(found), 3))
        for at, source in enumerate(self.sources):
            weights = {"data": (0, 0, 1), "parameter": (0, 1, 0), MIXED: (0, 0.5, 0.5)}.get(source, (1, 0, 0))
            parts += np.maximum(found[:, at], 0)[:, None] * np.array(weights)
        total = parts.sum(axis=1, keepdims=True)
        shares: Floats = np.divide(parts, total, out=np.full_like(parts, np.nan), where=total > 0)
        return shares


def wavering(
    labels: npt.NDArray[np.uint16], classes: int, factors: Sequence[Factor], strata: Sequence[Stratum]
) -> Wavering:
    """Split the disagreement about each cell.

    Parameters
    ----------
    labels
        What each training calls a cell, shape (n_replicates, n_points, n_cells); points are all combinations of the
        levels of the factors, the last factor fastest.
    classes
        Number of classes.
    factors, strata
        Those of the study; factors with one level here do not count.

    Raises
    ------
    ValueError
        If there are fewer than two replicates.
    """
    replicates, points, n = labels.shape
    if replicates < 2:
        raise ValueError("one replicate cannot tell training again from settings and data")
    layout = layout_of(factors, strata) if points > 1 else None
    sources = (*layout.groups, *(one.label for one in layout.strata)) if layout else ()
    variances = np.zeros((n, len(sources) + 1))
    torn = np.flatnonzero((labels != labels[:1, :1]).any(axis=(0, 1)))
    for start in range(0, torn.size, CHUNK):
        rows = torn[start : start + CHUNK]
        ones = (labels[:, :, rows, None] == np.arange(classes)).transpose(2, 3, 0, 1).astype(float)
        variances[rows] = _split(ones, layout).sum(axis=1)
    return Wavering(variances, (*sources, REPLICATE))


def _split(ones: Floats, layout: Layout | None) -> Floats:
    """Variances of tables, shape (..., n_replicates, n_points), by source, shape (..., n_sources)."""
    if layout is None:
        alone: Floats = ones[..., 0].var(axis=-1, ddof=1, keepdims=True)
        return alone
    found = squares(ones, layout)
    by_column, errors = effect_variances(found, layout), found.error_mean_squares
    groups = [np.array([layout.terms[t].group == group for t in layout.column_term[1:]]) for group in layout.groups]
    causes = [by_column[..., 1:][..., columns].sum(axis=-1) for columns in groups]
    block = (found.block / (found.replicates - 1) - errors[..., 0]) / layout.cells
    return np.concatenate([np.stack(causes, -1), chance_variances(errors, layout.sharing), block[..., None]], axis=-1)
