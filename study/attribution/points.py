"""The trials of a random design: units that share a training, and columns of the fixed effects."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from study.attribution.layout import DATA, MIXED, PARAMETER, Floats
from study.attribution.tables import logit, percent
from study.plan import Factor, Stratum

# A data factor and one of its columns, a parameter and one of its columns.
Product = tuple[str, int, str, int]


@dataclass(frozen=True, eq=False)
class Trials:
    """The trials of one class: values, units and the columns of the fixed effects.

    Attributes
    ----------
    mains
        Columns of each factor.
    products
        Which columns of a data factor and of a parameter are multiplied.
    group
        The cause of each column, those of `mains` first.
    """

    eta: Floats
    points: Floats
    replicate: NDArray[np.intp]
    point: NDArray[np.intp]
    runs: dict[str, NDArray[np.intp]]
    mains: dict[str, Floats]
    products: tuple[Product, ...]
    group: NDArray[np.str_]

    @cached_property
    def columns(self) -> Floats:
        """The fixed effects, ``[trial, column]``."""
        return _columns(self.mains, self.products)

    def columns_with(self, factor: str, trial: int) -> Floats:
        """Return the columns that all trials would have with a factor as it is in one of them."""
        mine = self.mains[factor]
        return _columns(self.mains | {factor: np.broadcast_to(mine[trial], mine.shape)}, self.products)


def arrange_trials(present: pd.DataFrame, factors: Sequence[Factor], strata: Sequence[Stratum]) -> Trials:
    """Return units and columns. Runs that are single trials, whole replicates or the same as others are left out."""
    replicate = _codes(present[["replicate"]])
    seen = [replicate, np.arange(len(present))]
    runs: dict[str, NDArray[np.intp]] = {}
    above: list[str] = ["replicate"]
    for stratum in strata:
        above += stratum.factors
        unit = _codes(present[above])
        if not any(len(np.unique(unit)) == len(np.unique(other)) for other in seen):
            runs[stratum.name] = unit
            seen.append(unit)
    mains = {factor.name: _main(present[factor.name], factor) for factor in factors}
    products = _products(mains, factors)
    group = [str(factor.role) for factor in factors for _ in mains[factor.name].T]
    return Trials(
        logit(present["correct"].to_numpy(float), present["total"].to_numpy(float)),
        percent(present["correct"].to_numpy(float), present["total"].to_numpy(float)),
        replicate,
        _codes(present[[factor.name for factor in factors]]),
        runs,
        mains,
        products,
        np.array([*group, *[MIXED] * len(products)]),
    )


def _products(mains: Mapping[str, Floats], factors: Sequence[Factor]) -> tuple[Product, ...]:
    """Return the data x parameter products that tell something new: few points may not hold all combinations."""
    roles = {role: [factor.name for factor in factors if factor.role == role] for role in (DATA, PARAMETER)}
    kept: list[Product] = []
    for one, other in itertools.product(roles[DATA], roles[PARAMETER]):
        for i, j in np.ndindex(mains[one].shape[1], mains[other].shape[1]):
            more = [*kept, (one, i, other, j)]
            columns = _columns(mains, more)
            exog = np.column_stack([np.ones(len(columns)), columns])
            if np.linalg.matrix_rank(exog) == exog.shape[1]:
                kept = more
    return tuple(kept)


def _columns(mains: Mapping[str, Floats], products: Sequence[Product]) -> Floats:
    """Return the columns of all factors, then those of the products."""
    return np.column_stack([*mains.values(), *(mains[one][:, i] * mains[other][:, j] for one, i, other, j in products)])


def _codes(frame: pd.DataFrame) -> NDArray[np.intp]:
    return np.asarray(frame.astype(str).groupby(list(frame.columns), sort=True).ngroup(), dtype=np.intp)


def _main(values: pd.Series, factor: Factor) -> Floats:
    """Return a factor's columns: a number on the scale it was drawn on, or one column per level but the first.

    All have mean 0, or a product would hold a part of the main effects.
    """
    if factor.levels:
        texts = values.astype(str).to_numpy()
        columns = np.column_stack([(texts == str(level)).astype(float) for level in factor.levels[1:]])
        centred: Floats = columns - columns.mean(axis=0)
        return centred
    numbers = values.to_numpy(float)
    drawn = np.log(numbers) if factor.domain and factor.domain.type == "loguniform" else numbers
    scaled: Floats = ((drawn - drawn.mean()) / drawn.std())[:, None]
    return scaled
