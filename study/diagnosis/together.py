"""What some runs can say together, however they came about: which causes they can tell apart, and what these explain.

Runs that were made one by one are no balanced design, so the attribution of a study does not fit them. Each cause is
tested against what is left when all others are held (an additive linear model), and only where the runs can tell it
apart from all others at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import optimize, stats

from study.attribution import SIGNIFICANT, holm
from study.diagnosis.columns import (
    Floats,
    causes_in,
    design_of,
    is_line,
    is_outcome,
    names_runs,
    numbers_of,
    points_of,
)
from study.errors import InputError


@dataclass(frozen=True)
class Explained:
    """What one cause explains of one outcome.

    Attributes
    ----------
    share
        Of the differences between the runs, with its 95% interval: the noncentrality of F over itself plus the number
        of runs (Steiger 2004, *Beyond the F test*).
    p
        Adjusted for all causes and outcomes (Holm 1979).
    """

    outcome: str
    share: float
    lower: float
    upper: float
    p: float

    @property
    def real(self) -> bool:
        """Whether chance alone would hardly do it."""
        return self.p < SIGNIFICANT


@dataclass(frozen=True)
class Cause:
    """Something that differs between runs; several columns, if they always change together.

    Attributes
    ----------
    columns
        Names of these columns.
    line
        Whether it counts as a straight line, for it has many numbers.
    with_
        Causes that it cannot be told apart from; it is never estimated then.
    explained
        Of each outcome; empty where it cannot be told.
    """

    columns: tuple[str, ...]
    line: bool
    with_: tuple[str, ...]
    explained: tuple[Explained, ...]

    @property
    def name(self) -> str:
        """Its columns in words."""
        return " = ".join(self.columns)


@dataclass(frozen=True)
class Together:
    """What runs say together.

    Attributes
    ----------
    runs
        How many they are.
    left
        Degrees of freedom that are left for chance.
    causes
        What differs between them.
    outcomes
        What was measured of all of them.
    exact
        Those in which runs that are alike in everything are equal to the last digit, so that chance was not measured.
    aside
        Columns that are neither: names of runs, and what was not measured of all of them.
    """

    runs: int
    left: int
    causes: tuple[Cause, ...]
    outcomes: tuple[str, ...]
    exact: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()

    @cached_property
    def sentences(self) -> list[str]:
        """What they can and cannot say."""
        if not self.outcomes:
            return ["Nothing was measured of all runs, so there is nothing to compare."]
        if not self.causes:
            return [f"{self.runs} runs differ in nothing that was recorded: what differs between them is chance."]
        if not self.left:
            names = ", ".join(cause.name for cause in self.causes)
            return [
                f"{self.runs} runs cannot tell: {names} and chance are one. No run is repeated, so nothing says where "
                "the same run would come out if it were trained again."
            ]
        said = []
        if self.exact:
            said.append(
                f"{', '.join(self.exact)}: runs that are alike in everything are equal to the last digit, so chance "
                "was not measured. Repeat them with other seeds."
            )
        for cause in self.causes:
            if cause.with_:
                said.append(f"{cause.name}: cannot be told apart from {', '.join(cause.with_)} in these runs.")
                continue
            real = [one for one in cause.explained if one.real]
            if cause.explained and not real:
                most = max(cause.explained, key=lambda one: one.upper)
                how = "as a straight line" if cause.line else "if causes add up"
                said.append(
                    f"{cause.name}: no effect stands out from chance ({how}, it explains at most {most.upper:.0%} of "
                    f"{most.outcome})."
                )
            for one in real:
                said.append(
                    f"{cause.name}: a real effect on {one.outcome}, {one.share:.0%} of the differences between "
                    f"the runs [{one.lower:.0%}, {one.upper:.0%}] (adjusted p = {one.p:.2g})."
                )
        return said

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each cause and outcome; without numbers where it cannot be told."""
        rows = []
        for cause in self.causes:
            told = ", ".join(cause.with_) or ("" if self.left else "chance")
            for one in cause.explained or (None,):
                values = {} if one is None else {**vars(one), "real": one.real}
                rows.append({"cause": cause.name, "cannot be told apart from": told, **values})
        columns = ["cause", "cannot be told apart from", "outcome", "share", "lower", "upper", "p", "real"]
        return pd.DataFrame(rows, columns=columns)


def compare_runs(table: pd.DataFrame, measured: Sequence[str] = ()) -> Together:
    """Say what runs can tell together.

    Parameters
    ----------
    table
        One row per run. Columns whose names have a word such as `recall` or `accuracy`, or that begin with `heldout/`,
        `train/` or `query/`, are outcomes; `seed`, `replicate` and `fold` are chance; what only names runs is set
        aside; all others that differ are causes.
    measured
        Columns that are outcomes too.

    Raises
    ------
    InputError
        If there are fewer than two runs, or an outcome is not finite or mixes shares and percentages.
    """
    if len(table) < 2:
        raise InputError(f"{len(table)} run: expected two at least, to compare them. Add a row for each other run.")
    table = table.rename(columns=str)
    names = list(map(str, table))
    named = [name for name in names if is_outcome(name) or name in measured]
    outcomes = [name for name in named if numbers_of(table[name]).notna().all()]
    values = [points_of(table[name], is_outcome(name)) for name in outcomes]
    rest = table.drop(columns=named)
    naming = [name for name in map(str, rest) if names_runs(name) and rest[name].nunique() > 1]
    groups = causes_in(rest.drop(columns=naming))
    designs = [design_of(table[group[0]]) for group in groups]
    every = _together(designs, len(table))
    rank = _rank(every)
    left = len(table) - rank
    told = [rank - _rank(_together(designs, len(table), at)) == _own_rank(one) for at, one in enumerate(designs)]
    noisy = [_noisy(every, y) for y in values]
    tested = [(name, y) for name, y, good in zip(outcomes, values, noisy, strict=True) if good]
    explained = _explained([y for _, y in tested], [name for name, _ in tested], designs, told, left, rank)
    causes = []
    for at, group in enumerate(groups):
        with_ = () if told[at] else tuple(" = ".join(groups[other]) for other in _confused(at, designs))
        causes.append(Cause(group, is_line(table[group[0]]), with_, tuple(explained.get(at, ()))))
    exact = tuple(name for name, good in zip(outcomes, noisy, strict=True) if not good) if left else ()
    aside = (*naming, *(name for name in named if name not in outcomes))
    return Together(len(table), left, tuple(causes), tuple(outcomes), exact, aside)


def _noisy(every: Floats, y: Floats) -> bool:
    """Whether an outcome differs between runs that are alike in everything; one that never differs is no news."""
    whole = _rss(np.ones((len(y), 1)), y)
    return whole == 0 or _rss(every, y) > 1e-12 * whole


def _together(designs: Sequence[Floats], n: int, *but: int) -> Floats:
    """The design of n runs with all causes but some."""
    return np.column_stack([np.ones(n), *(one for at, one in enumerate(designs) if at not in but)])


def _rank(design: Floats) -> int:
    return int(np.linalg.matrix_rank(design)) if design.size else 0


def _own_rank(design: Floats) -> int:
    """Degrees of freedom of a cause alone."""
    return _rank(design - design.mean(axis=0))


def _confused(at: int, designs: Sequence[Floats]) -> list[int]:
    """Causes without which this one could be told; all others if it takes more than one."""
    n, own = len(designs[at]), _own_rank(designs[at])
    others = [other for other in range(len(designs)) if other != at]
    found = [
        other
        for other in others
        if _rank(_together(designs, n, other)) - _rank(_together(designs, n, at, other)) == own
    ]
    return found or others


def _explained(
    values: Sequence[Floats],
    outcomes: Sequence[str],
    designs: Sequence[Floats],
    told: Sequence[bool],
    left: int,
    rank: int,
) -> dict[int, list[Explained]]:
    """F tests of each cause that can be told, against what all causes leave, adjusted for all of them."""
    asked = [at for at, one in enumerate(told) if one]
    if not asked or not outcomes or left < 1:
        return {}
    n = len(values[0])
    errors = [_rss(_together(designs, n), y) for y in values]
    f, df = np.zeros((len(asked), len(outcomes))), np.zeros(len(asked), dtype=int)
    for row, at in enumerate(asked):
        others = _together(designs, n, at)
        df[row] = rank - _rank(others)
        for column, (y, error) in enumerate(zip(values, errors, strict=True)):
            gained = max(_rss(others, y) - error, 0.0)
            f[row, column] = gained / df[row] / (error / left) if error > 0 else 0.0
    p = holm(np.asarray(stats.f.sf(f, df[:, None], left)))
    return {
        at: [Explained(outcome, *_share(f[row, column], int(df[row]), left, n), float(p[row, column]))
             for column, outcome in enumerate(outcomes)]
        for row, at in enumerate(asked)
    }  # fmt: skip


def _rss(design: Floats, y: Floats) -> float:
    fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return float(((y - fitted) ** 2).sum())


def _share(f: float, df: int, left: int, n: int) -> tuple[float, float, float]:
    """Share of the differences that an F stands for, and its 95% interval."""
    lower, upper = (_noncentrality(f, df, left, tail) for tail in (0.975, 0.025))
    middle = max(df * (f - 1), 0.0)
    return middle / (middle + n), lower / (lower + n), upper / (upper + n)


def _noncentrality(f: float, df: int, left: int, tail: float) -> float:
    """Noncentrality under which an F of this size or less has this probability; 0 where none is that small."""

    def gap(value: float) -> float:
        return float(stats.ncf.cdf(f, df, left, value) - tail) if value else float(stats.f.cdf(f, df, left) - tail)

    if gap(0.0) <= 0:
        return 0.0
    high = 10.0
    while gap(high) > 0 and high < 1e7:
        high *= 4
    return float(optimize.brentq(gap, 0.0, high)) if gap(high) <= 0 else high
