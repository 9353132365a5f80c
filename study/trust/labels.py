"""The labels of a query as all trainings of a study give them: what each cell is, how sure, what that depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.cells import Cells
from study.errors import InputError
from study.plan import Factor, Plan, PlannedTrial, Stratum
from study.trials import Evidence, Result, read_evidence
from study.trust.calibration import calibrate
from study.trust.conformal import least_probable, sets_of
from study.trust.consensus import Pool, pool
from study.trust.novelty import novelty
from study.trust.replicates import together
from study.trust.trials import is_whole, refuse_too_few, whole_trials
from study.trust.wavering import wavering

UNKNOWN = 0.05  # share of reference cells that may be taken for something new
# A label is trusted that is right with this probability, and that so many trainings agree on.
PROBABLE, AGREED = 0.95, 0.9
TIE = 1e-6
TRUST = HIGH, CHECK, NONE = "high", "check", "none"


@dataclass(frozen=True)
class Labels:
    """Labels of the cells of a query.

    Attributes
    ----------
    cells
        One row per query cell, in the order of the prepared cells: `label`, `probability` that it is right,
        `agreement` (share of the trainings that say so), `set` (labels that it may be), `second` label, `novelty`,
        `trust`, and `again` and `settings`, what trainings that disagree about it differ by, as shares.
    held_out
        The same of the reference cells, as trainings say of them that held them out, with the `truth`.
    agreement
        Of each training, by the key of its trial, the share of the query cells that it calls what all together do.
    planned
        How many trainings of it the study has, finished or not.
    replicates
        How many there were.
    """

    cells: pd.DataFrame
    held_out: pd.DataFrame
    agreement: Mapping[str, float]
    planned: int
    replicates: int

    @property
    def trainings(self) -> int:
        """How many trainings there were."""
        return len(self.agreement)

    @property
    def trusted_share(self) -> float:
        """Share of the query cells whose label is of high trust."""
        return float((self.cells["trust"] == HIGH).mean())

    @property
    def levels(self) -> dict[str, int]:
        """How many query cells are of each level of trust."""
        return {level: int((self.cells["trust"] == level).sum()) for level in TRUST}

    @property
    def sentence(self) -> str:
        """How far the labels are to be trusted, and how often held-out reference cells of each level are right."""
        said = []
        for level, n, known, right in self.measured.itertuples(index=False):
            how = (
                f"held-out ones right in {right:.1%} of {known:,}"
                if known
                else "no held-out cell tells how often right"
            )
            said.append(f"{level} {n:,} ({how})")
        trainings = f"{self.trainings}" if self.trainings == self.planned else f"{self.trainings} of {self.planned}"
        return (
            f"trust in the labels of {len(self.cells):,} cells: {', '.join(said)}. {trainings} trainings of "
            f"{self.replicates} replicates."
        )

    @property
    def by_label(self) -> pd.DataFrame:
        """One row per label: how many query cells are called so, how many of each trust, and their mean agreement."""
        levels = pd.crosstab(self.cells["label"], self.cells["trust"]).reindex(columns=TRUST, fill_value=0)
        agreement = self.cells.groupby("label")["agreement"].mean()
        return pd.concat([levels.sum(axis=1).rename("cells"), levels, agreement], axis=1).reset_index()

    @property
    def torn(self) -> pd.DataFrame:
        """One row per pair of labels that cells of less than high trust waver between, most cells first."""
        some = self.cells[self.cells["trust"] != HIGH]
        means = {name: (name, "mean") for name in ("agreement", "again", "settings")}
        found = some.groupby(["label", "second"], as_index=False).agg(cells=("trust", "size"), **means)
        return found.sort_values("cells", ascending=False, kind="stable").reset_index(drop=True)

    @property
    def measured(self) -> pd.DataFrame:
        """One row per level of trust: query cells, held-out reference cells, and how many of these are right."""
        right = self.held_out["label"] == self.held_out["truth"]
        by_level = right.groupby(self.held_out["trust"]).agg(["size", "mean"]).reindex(TRUST)
        found = {"query cells": self.levels, "held-out cells": by_level["size"].fillna(0).astype(int)}
        return pd.DataFrame({**found, "right": by_level["mean"]}).rename_axis("trust").reset_index()


def labels_of(
    query: str,
    plan: Plan,
    strata: Sequence[Stratum],
    results: Mapping[str, Result],
    cells: Cells,
    directory: Path,
    unknown: float = UNKNOWN,
) -> Labels:
    """Put together what all finished trials say of all cells of a query; nothing is trained.

    Parameters
    ----------
    query
        Its name.
    plan, strata
        The study's.
    results
        Finished trials by key.
    cells
        The prepared query with the reference.
    directory
        Folder of the study.
    unknown
        Share of the reference cells that may be taken for something new.

    Raises
    ------
    InputError
        If no finished trial has all cells of the query, or all are of one replicate.
    """
    if not (isinstance(unknown, float | int) and 0 < unknown < 1):
        raise InputError(f"unknown: expected a share between 0 and 1, as in 0.05, found {unknown!r}.")
    trials = whole_trials(query, plan, results, cells)
    refuse_too_few(query, plan, trials, cells)
    evidence = {trial.key: read_evidence(directory, results[trial.key]) for trial in trials}
    told = [_told(mine, cells) for mine in _by_replicate(trials, evidence)]
    calibration = calibrate([one.held_out for one in told], [cells.labels[one.rows] for one in told])
    of_query = [(np.arange(cells.n_query), one.query) for one in told]
    of_held_out = [(one.rows, one.held_out) for one in told]
    query_pool, held_out = _pooled(of_query), _pooled(of_held_out)
    probability, as_held_out = (
        together([(rows, calibration(one)) for rows, one in some]) for some in (of_query, of_held_out)
    )
    rows = np.unique(np.concatenate([one.rows for one in told]))
    truth = cells.labels[rows]
    of_query_cells, of_known = _graded(probability, query_pool), _graded(as_held_out, held_out)
    least = least_probable(of_known, truth)
    names = np.asarray(cells.classes, dtype=object)
    frame = _judged(
        query_pool, probability, names, sets_of(of_query_cells, least), novelty(query_pool, held_out), unknown
    )
    frame = frame.set_axis(cells.names[cells.n_reference :])
    frame[["again", "settings"]] = _why(trials, evidence, plan.factors, strata, len(names), cells.n_query)
    known = _judged(held_out, as_held_out, names, sets_of(of_known, least), novelty(held_out, held_out), unknown)
    known = known.set_axis(cells.names[rows]).assign(truth=names[truth])
    called = pd.Index(names).get_indexer(frame["label"])
    agreement = {key: float((one.labels[-cells.n_query :, 0] == called).mean()) for key, one in evidence.items()}
    planned = sum(is_whole(trial.condition, query, cells) for trial in plan.trials)
    return Labels(frame.rename_axis("cell"), known.rename_axis("cell"), agreement, planned, len(told))


def _graded(probable: np.ndarray, one: Pool) -> np.ndarray:
    """Probabilities, those that calibration made equal in the order in which they were before."""
    found: np.ndarray = probable + TIE * one.probabilities
    return found


def _by_replicate(trials: Sequence[PlannedTrial], evidence: Mapping[str, Evidence]) -> list[list[Evidence]]:
    """What the trainings of each replicate say, replicate by replicate."""
    found: dict[int, list[Evidence]] = {}
    for trial in trials:
        found.setdefault(trial.replicate.index, []).append(evidence[trial.key])
    return [found[index] for index in sorted(found)]


@dataclass(frozen=True, eq=False)
class _Told:
    """What the trainings of one replicate say: rows of the cells that they held out, of these, and of the query."""

    rows: npt.NDArray[np.int64]
    held_out: Pool
    query: Pool


def _told(evidence: Sequence[Evidence], cells: Cells) -> _Told:
    every = pool(evidence, len(cells.classes))
    return _Told(evidence[0].held_out, every[: -cells.n_query], every[-cells.n_query :])


def _pooled(told: Sequence[tuple[npt.NDArray[np.int64], Pool]]) -> Pool:
    """Mean over the trainings of all replicates of what they say of cells, by row."""
    n = 1 + max(int(rows.max()) for rows, _ in told)
    shape = (n, told[0][1].probabilities.shape[1])
    sums = {"probabilities": np.zeros(shape), "votes": np.zeros(shape), "distance": np.zeros(n)}
    count = np.zeros(n)
    for rows, one in told:
        count[rows] += one.trainings
        for name, values in sums.items():
            values[rows] += one.trainings * getattr(one, name)
    seen = count > 0
    means = {name: (values[seen].T / count[seen]).T.astype(np.float32) for name, values in sums.items()}
    return Pool(**means, trainings=sum(one.trainings for _, one in told))


def _judged(
    one: Pool, probable: np.ndarray, classes: np.ndarray, sets: np.ndarray, new: np.ndarray, unknown: float
) -> pd.DataFrame:
    """One row per cell: what it is called, and how far that is to be trusted."""
    # What no training calls a cell is not what they call it together, however probable it looks once calibrated.
    voted = np.where(one.votes > 0, probable, probable - 1)
    second, label = np.argsort(voted, axis=1, kind="stable")[:, -2:].T
    row = np.arange(len(label))
    probability, agreement = probable[row, label], one.votes[row, label]
    sure = (probability >= PROBABLE) & (agreement >= AGREED) & sets[row, label]
    strange = new > 1 - unknown
    quoted = np.array([f'"{name}"' if "|" in name else name for name in classes], dtype=object)
    return pd.DataFrame(
        {
            "label": classes[label],
            "probability": probability,
            "agreement": agreement,
            "set": [" | ".join(quoted[mine]) for mine in sets],
            "second": classes[second],
            "novelty": new,
            "trust": np.where(strange, NONE, np.where(sure, HIGH, CHECK)),
        }
    )


def _why(
    trials: Sequence[PlannedTrial],
    evidence: Mapping[str, Evidence],
    factors: Sequence[Factor],
    strata: Sequence[Stratum],
    classes: int,
    n_query: int,
) -> np.ndarray:
    """Shares of `again` and `settings` in what trainings of a cell disagree by; NaN where the design does not tell."""
    levels = {factor.name: [trial.levels[factor.name] for trial in trials] for factor in factors}
    varied = [factor for factor in factors if len({str(level) for level in levels[factor.name]}) > 1]
    table: dict[tuple[str, ...], dict[int, Evidence]] = {}
    for trial in trials:
        point = tuple(str(trial.levels[factor.name]) for factor in varied)
        table.setdefault(point, {})[trial.replicate.index] = evidence[trial.key]
    order = list(product(*(map(str, factor.levels) for factor in varied)))
    whole = set.intersection(*(set(row) for row in table.values()))
    crossed = len(table) == len(order) and all(factor.levels for factor in varied) and len(whole) > 1
    if not crossed:
        return np.full((n_query, 2), np.nan)
    labels = np.stack(
        [np.stack([table[point][index].labels[-n_query:, 0] for point in order]) for index in sorted(whole)]
    )
    kept: npt.NDArray[np.float64] = wavering(labels, classes, varied, strata).shares()[:, :2]
    return kept


def trust_frame(trust: Mapping[str, Labels]) -> pd.DataFrame:
    """Return how many cells of each query and label are to be trusted."""
    return pd.concat([labels.by_label.assign(query=query) for query, labels in trust.items()], ignore_index=True)
