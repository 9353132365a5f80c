"""Flips: labelled reference cells that are called something else under another condition, all else being equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.cells import Cells
from study.plan import Levels, Plan, PlannedTrial
from study.trials import HELD_OUT, TRAIN, Predictions, ReadPredictions, Result
from study.verdict.words import PART_WORDS, point_words

PARTS = (PART_WORDS[HELD_OUT], PART_WORDS[TRAIN])
ANY = "(any condition)"
# Training cells of both replicates under the baseline condition: what another seed and other held-out cells flip.
REPLICATE = "(another replicate)"


@dataclass(frozen=True)
class Flips:
    """What flips between a baseline condition (the first level of each data factor) and each other one.

    Attributes
    ----------
    cells
        One row per cell, condition and change of label: `cell`, `batch`, `label` (the true one), `part`, `baseline`,
        `condition`, `from`, `to`, `flips` (in how many pairs of trials), `compared` (of how many).
    transitions
        The same summed over cells: `part`, `condition`, `from`, `to`, `flips`, `compared`, `cells`.
    rates
        By `grouping` (all, class or batch), `name`, `part` and `condition`: `cells`, share of them that `ever` flip,
        `flips`, `compared`, and their `rate`.
    """

    baseline: str
    cells: pd.DataFrame
    transitions: pd.DataFrame
    rates: pd.DataFrame

    def frames(self) -> dict[str, pd.DataFrame]:
        """Return the tables by name."""
        return {"flips": self.cells, "flip_transitions": self.transitions, "flip_rates": self.rates}


@dataclass(frozen=True, eq=False)
class _Tally:
    """Comparisons of one condition with the baseline: how many of each cell, and which changes of label."""

    compared: npt.NDArray[np.int64]
    changes: list[npt.NDArray[np.int64]]

    def add(self, one: _Called, other: _Called, where: npt.NDArray[np.bool_], classes: int) -> None:
        """Compare two trials on the cells that are `where`."""
        part = np.where(one.held_out, 0, 1)
        rows = np.flatnonzero(where)
        self.compared[part[rows], rows] += 1
        rows = rows[one.label[rows] != other.label[rows]]
        change = one.label[rows].astype(np.int64) * classes + other.label[rows]
        self.changes.append((part[rows] * where.size + rows) * classes**2 + change)


@dataclass(frozen=True, eq=False)
class _Called:
    """What one trial calls the reference cells, and which of them it held out."""

    label: npt.NDArray[np.uint16]
    held_out: npt.NDArray[np.bool_]


def find_flips(plan: Plan, results: Mapping[str, Result], read: ReadPredictions, cells: Cells) -> Flips | None:
    """Find the flips of a study; None where no two finished trials differ in their condition alone.

    Parameters
    ----------
    plan
        The study's plan; its first trial has the baseline condition.
    results
        Finished trials of the table by key.
    read
        Gives the predictions of a finished trial.
    cells
        Prepared cells of any query, for the reference.
    """
    data = {factor.name for factor in plan.factors if factor.role == "data"}
    baseline = _levels(plan.trials[0], data)
    tallies: dict[str, _Tally] = {}
    labelled = cells.labels >= 0
    before: dict[Levels, _Called] = {}
    for (_, settings), group in _groups(plan, results, data).items():
        if baseline not in group:
            continue
        base = _called(read(group[baseline]))
        for point, key in group.items():
            if point != baseline:
                other = _called(read(key))
                _of(tallies, point_words(point), cells).add(base, other, labelled, len(cells.classes))
        if settings in before:
            both = labelled & ~(base.held_out | before[settings].held_out)
            _of(tallies, REPLICATE, cells).add(before[settings], base, both, len(cells.classes))
        before[settings] = base
    if not set(tallies) - {REPLICATE}:
        return None
    table = pd.concat([_table(name, tally, point_words(baseline), cells) for name, tally in tallies.items()])
    table = table.sort_values(["condition", "flips"], ascending=[True, False], kind="stable", ignore_index=True)
    return Flips(point_words(baseline), table, _transitions(table, tallies), _rates(table, tallies, cells))


def _groups(plan: Plan, results: Mapping[str, Result], data: set[str]) -> dict[tuple[int, Levels], dict[Levels, str]]:
    """Keys of finished trials by condition, for each replicate and setting."""
    groups: dict[tuple[int, Levels], dict[Levels, str]] = {}
    chosen = {factor.name for factor in plan.factors} - data
    for trial in plan.trials:
        if trial.key in results:
            at = (trial.replicate.index, _levels(trial, chosen))
            groups.setdefault(at, {})[_levels(trial, data)] = trial.key
    return groups


def _levels(trial: PlannedTrial, names: set[str]) -> Levels:
    return tuple((name, level) for name, level in trial.point if name in names)


def _called(found: Predictions) -> _Called:
    held_out = np.zeros(len(found.probabilities), dtype=bool)
    held_out[found.held_out] = True
    return _Called(found.probabilities.argmax(axis=1).astype(np.uint16), held_out)


def _of(tallies: dict[str, _Tally], name: str, cells: Cells) -> _Tally:
    empty = np.zeros((len(PARTS), cells.n_reference), dtype=np.int64)
    return tallies.setdefault(name, _Tally(empty, []))


def _table(name: str, tally: _Tally, baseline: str, cells: Cells) -> pd.DataFrame:
    n, classes = cells.n_reference, np.array(cells.classes, dtype=object)
    codes, flips = np.unique(np.concatenate(tally.changes), return_counts=True)
    place, change = np.divmod(codes, len(classes) ** 2)
    part, row = np.divmod(place, n)
    return pd.DataFrame(
        {
            "cell": cells.names[row],
            "batch": np.array(cells.batches, dtype=object)[cells.batch[row]],
            "label": classes[cells.labels[row]],
            "part": np.array(PARTS, dtype=object)[part],
            "baseline": baseline,
            "condition": name,
            "from": classes[change // len(classes)],
            "to": classes[change % len(classes)],
            "flips": flips,
            "compared": tally.compared[part, row],
        }
    )


def _transitions(table: pd.DataFrame, tallies: Mapping[str, _Tally]) -> pd.DataFrame:
    keys = ["condition", "part", "from", "to"]
    summed = table.groupby(keys, sort=False).agg(flips=("flips", "sum"), cells=("cell", "nunique")).reset_index()
    totals = {
        (name, part): tally.compared[at].sum() for name, tally in tallies.items() for at, part in enumerate(PARTS)
    }
    pairs = zip(summed["condition"], summed["part"], strict=True)
    summed["compared"] = [int(totals[pair]) for pair in pairs]
    return summed.sort_values("flips", ascending=False, kind="stable", ignore_index=True)


def _rates(table: pd.DataFrame, tallies: Mapping[str, _Tally], cells: Cells) -> pd.DataFrame:
    """Rates of all cells, by true class and by batch, for each part and condition."""
    batch = cells.batch[: cells.n_reference]
    groupings = [("all", "", np.ones(cells.n_reference, bool))]
    groupings += [("class", name, cells.labels == code) for code, name in enumerate(cells.classes)]
    groupings += [("batch", name, batch == code) for code, name in enumerate(cells.batches) if (batch == code).any()]
    place = pd.Series(np.arange(cells.n_reference), index=cells.names[: cells.n_reference])
    real = [name for name in tallies if name != REPLICATE]
    rows = []
    for condition in ([ANY] if len(real) > 1 else []) + list(tallies):
        of = real if condition == ANY else [condition]
        mine = table[table["condition"].isin(of)]
        for at, part in enumerate(PARTS):
            compared = np.sum([tallies[name].compared[at] for name in of], axis=0)
            here = mine[mine["part"] == part]
            flips = np.bincount(place[here["cell"]], weights=here["flips"], minlength=cells.n_reference)
            for grouping, name, members in groupings:
                some = members & (compared > 0)
                if some.any():
                    total, flipped = int(compared[some].sum()), int(flips[some].sum())
                    rows.append(
                        {
                            "grouping": grouping,
                            "name": name,
                            "part": part,
                            "condition": condition,
                            "cells": int(some.sum()),
                            "ever": float((flips[some] > 0).mean()),
                            "flips": flipped,
                            "compared": total,
                            "rate": flipped / total,
                        }
                    )
    return pd.DataFrame(rows)
