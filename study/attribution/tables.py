"""The trials of one class as replicates by cells, and the reasons for which a class is not decomposed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats

from study.attribution.layout import Floats, Layout
from study.config import written
from study.plan import Factor

# Below this many cells (or calls, for precision) a class has no shares: docs/method.md, "Few cells".
MIN_SUPPORT = 20
# It has effects if each trial counts `FEW` cells, all replicates `FEW_TOGETHER`, and there are `FEW_REPLICATES`.
FEW, FEW_TOGETHER, FEW_REPLICATES = 5, 40, 4
# Failures are taken to go with a level of a factor below this one-sided p value, corrected for all levels looked at.
MISSING_P = 0.10


@dataclass(frozen=True, eq=False)
class ClassTable:
    """One outcome of one class: counts by replicate and cell; NaN where a trial is missing.

    Attributes
    ----------
    correct, total
        Cells right and cells counted, ``[replicate, cell]``.
    seeds, folds
        Training seed and held-out fold, ``[replicate]``.
    """

    correct: Floats
    total: Floats
    seeds: NDArray[np.int_]
    folds: NDArray[np.int_]

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which trials have a result, ``[replicate, cell]``."""
        return np.isfinite(self.correct)

    @property
    def eta(self) -> Floats:
        """Empirical logits."""
        return logit(self.correct, self.total)

    @property
    def points(self) -> Floats:
        """Percentages; NaN where nothing was counted."""
        return percent(self.correct, self.total)

    @property
    def slopes(self) -> Floats:
        """Points per unit on the logit scale, at each trial."""
        return slope(special.expit(self.eta))

    @property
    def support(self) -> float:
        """Cells counted per trial, on average."""
        return float(np.nanmean(self.total)) if self.present.any() else 0.0

    @property
    def few(self) -> bool:
        """Whether it has too few cells for shares."""
        return self.support < MIN_SUPPORT


def logit(correct: Floats, total: Floats) -> Floats:
    """Return the empirical logit log((k + 1/2) / (n - k + 1/2)), finite also at 0 and at n (Haldane 1956)."""
    return special.logit((correct + 0.5) / (total + 1.0))


def percent(correct: Floats, total: Floats) -> Floats:
    """Return 100 k / n; NaN where n is 0."""
    return 100.0 * np.divide(correct, total, out=np.full_like(correct, np.nan), where=total > 0)


def slope(share: Floats) -> Floats:
    """Return how many points a step of 1 on the logit scale is worth, at a share between 0 and 1."""
    return 100.0 * share * (1.0 - share)


def class_table(table: pd.DataFrame, layout: Layout) -> ClassTable:
    """Arrange one class's rows by replicate and cell.

    Parameters
    ----------
    table
        One row per trial: a column per factor, `replicate`, `seed`, `fold`, `correct`, `total`. A failed trial is
        a row with NaN in `correct`, or no row.
    layout
        The design.

    Raises
    ------
    ValueError
        If a level is none of the design's, a trial appears twice, or counts are impossible.
    """
    codes = [_codes(table[factor.name], factor) for factor in layout.factors]
    cell = np.ravel_multi_index(tuple(codes), layout.levels)
    replicates, row = np.unique(table["replicate"].to_numpy(), return_inverse=True)
    if len(np.unique(row * layout.cells + cell)) < len(table):
        raise ValueError("The table has a trial twice: same levels, same replicate.")
    correct, total = table["correct"].to_numpy(float), table["total"].to_numpy(float)
    with np.errstate(invalid="ignore"):
        if (correct < 0).any() or (correct > total * (1 + 1e-9)).any():
            raise ValueError("The table has more cells right than counted, or fewer than 0.")
    shape = (len(replicates), layout.cells)
    arranged = np.full((2, *shape), np.nan)
    arranged[:, row, cell] = correct, np.where(np.isfinite(correct), total, np.nan)
    first = [int(np.flatnonzero(row == r)[0]) for r in range(len(replicates))]
    return ClassTable(arranged[0], arranged[1], table["seed"].to_numpy(int)[first], table["fold"].to_numpy(int)[first])


def _codes(column: pd.Series, factor: Factor) -> NDArray[np.intp]:
    """Return the index of each value among the factor's levels, also when a file made strings of them."""
    texts = {str(level): i for i, level in enumerate(factor.levels)}
    index = {level: i for i, level in enumerate(factor.levels)}
    codes = [index.get(value, texts.get(str(value), -1)) for value in column]
    if -1 in codes:
        value = column.iloc[codes.index(-1)]
        raise ValueError(f"{factor.name}: {value!r} is none of its levels {list(factor.levels)}.")
    return np.array(codes, dtype=np.intp)


def reason_not_to(table: ClassTable, layout: Layout) -> str:
    """Return why a class is shown but not decomposed, in words; empty if it can be."""
    if len(table.correct) < 2:
        return "one replicate only: chance cannot be told from causes; at least 2 are needed, 3 are better"
    if not table.present.any():
        return "no trial has a result"
    never = int((table.total == 0).sum())
    if never:
        return f"undefined in {never} of {int(table.present.sum())} trials: no cell was called this class there"
    if table.few and (lacking := _too_few(table)):
        return lacking
    share = np.where(table.present, table.correct / table.total, np.nan)
    if np.nanmax(share) == np.nanmin(share):
        return f"nothing varies: {100 * np.nanmax(share):.4g}% in every trial"
    if (np.nanmax(share, axis=1) == np.nanmin(share, axis=1)).all():
        return "nothing varies within replicates: trials differ only by replicate (its held-out cells and its seed)"
    return missing_not_at_random(table.present, layout)


def _too_few(table: ClassTable) -> str:
    """Return what a class with few cells lacks for effects, in words; empty if it has it."""
    least, mean = int(np.nanmin(table.total)), table.support
    found = f"too few cells: {mean:.0f} on average; {MIN_SUPPORT} are needed for shares"
    if least < FEW:
        return f"{found}, and {FEW} in every trial for effects (the fewest: {least})"
    enough = replicates_of_few(mean)
    return "" if len(table.correct) >= enough else f"{found}, and {enough} replicates of so few for effects"


def replicates_of_few(support: float) -> int:
    """Return how many replicates a class with so few cells needs to have effects."""
    return max(FEW_REPLICATES, int(np.ceil(FEW_TOGETHER / support)))


def missing_not_at_random(present: NDArray[np.bool_], layout: Layout) -> str:
    """Return why missing trials forbid shares, in words; empty if they may be missing by accident.

    Units are counted, not trials: one failed pretraining takes all its trials along and is still one accident.

    Parameters
    ----------
    present
        Which trials have a result, ``[replicate, cell]``.
    layout
        The design.
    """
    if present.all():
        return ""
    lost = int((~present.any(axis=0)).sum())
    if lost:
        return f"not missing at random: {lost} of {layout.cells} design points have no result in any replicate"
    grid: NDArray[np.bool_] = present.reshape(-1, *layout.levels)
    depth = [next(s for s, stratum in enumerate(layout.strata) if f.name in stratum.factors) for f in layout.factors]
    for f, factor in enumerate(layout.factors):
        deeper = tuple(axis + 1 for axis, other in enumerate(depth) if other > depth[f])
        failed = np.moveaxis(np.asarray(~grid.all(axis=deeper, keepdims=True)), f + 1, 0).reshape(
            len(factor.levels), -1
        )
        for level, units in zip(factor.levels, failed, strict=True):
            others = int(failed.sum() - units.sum())
            split = np.array([[units.sum(), (~units).sum()], [others, failed.size - units.size - others]])
            p = float(stats.fisher_exact(split, alternative="greater").pvalue)
            if p * sum(layout.levels) < MISSING_P:
                return (
                    f"not missing at random: failures go with {factor.name} = {written(level)} "
                    f"({int(units.sum())} of {int(failed.sum())} failed units)"
                )
    return ""
