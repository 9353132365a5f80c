"""A condition, a concrete joint set of cells, and what planning asks about conditions again and again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from study.cells import Cells
from study.config import StudyConfig
from study.errors import InputError
from study.plan.split import Indices, Split, query_rows, split_cells
from study.plan.trials import Trial
from study.seeds import generator

# A class of fewer cells says little about how a class that the reference lacks is met.
NOVEL_CELLS = 50


@dataclass(frozen=True)
class Condition:
    """A query, cut to some of its cells.

    Attributes
    ----------
    n_cells
        How many query cells.
    draw
        Which ones: 0 the first, any other number a random draw of its own.
    shuffled
        Replicate whose permutation of the reference labels this is (control `shuffled`); None where labels are true.
    removed
        Class whose reference cells stand behind the query, without their labels (control `novel`).
    """

    query: str
    n_cells: int
    draw: int = 0
    shuffled: int | None = None
    removed: str = ""

    def take(self, cells: Cells) -> Cells:
        """Return this condition's part of a query's prepared cells; counts are views where the first are taken."""
        mine = _drawn(cells, self.n_cells, self.draw) if self.draw else cells.first(self.n_cells)
        if self.removed:
            mine = mine.without(self.removed)
        if self.shuffled is None:
            return mine
        labels, known = mine.labels.copy(), mine.labels >= 0
        labels[known] = generator(self.shuffled, "shuffled labels").permutation(labels[known])
        return replace(mine, labels=labels)


def _drawn(cells: Cells, n: int, draw: int) -> Cells:
    """Some query cells at random. They are copied, with the reference: only the first ones can be views."""
    if n == cells.n_query:
        return cells  # all of them are no draw
    return cells.picked(np.arange(cells.n_reference), _which(cells.n_query, n, draw))


def _which(n_query: int, n: int, draw: int) -> Indices:
    """Which of the query cells a draw takes."""
    return generator(draw, "query draw").permutation(n_query)[:n] if draw else np.arange(n)


def _with_held_out(parts: Split, cells: Cells, folds: int) -> Split:
    """Refuse a fold in which nothing could be measured."""
    if not parts.held_out.size:
        raise InputError(
            f"space.folds: with {folds} folds of {cells.n_reference:,} reference cells in {len(cells.classes)} classes "
            "there is a fold with no held-out cell (the only cell of a class is always trained on). Use fewer folds."
        )
    return parts


class Conditions:
    """The conditions of a design: their digests, splits, and steps and epochs of training, each computed once."""

    def __init__(self, config: StudyConfig, prepared: Mapping[str, Cells], trials: Sequence[Trial]) -> None:
        resources = config.resources
        self.numerics = {"engine": resources.engine, "accelerator": resources.accelerator, "threads": resources.cpus}
        self.prepared = prepared
        self.folds = config.space.n_folds
        self._digests: dict[Condition, str] = {}
        self._splits: dict[tuple[Condition, int, int], Split] = {}
        self.designed = dict.fromkeys(self.of(trial) for trial in trials)

    def of(self, trial: Trial) -> Condition:
        """Return the condition of a trial.

        Raises
        ------
        InputError
            If its query has fewer cells than wanted.
        """
        cells = self.prepared[trial.query]
        wanted = trial.settings.query_cells
        if wanted != "all" and wanted > cells.n_query > 0:
            raise InputError(
                f"query_cells: {wanted} cells of query {trial.query!r} wanted, it has {cells.n_query}. "
                f"Use at most {cells.n_query}, or 'all'."
            )
        size = cells.n_query if wanted == "all" else min(wanted, cells.n_query)
        shuffled = trial.replicate.index if trial.control == "shuffled" else None
        return Condition(trial.query, size, trial.settings.query_draw, shuffled, trial.removed)

    def measurable(self, condition: Condition) -> bool:
        """Whether the true class of any of its query cells is known, and one of the reference's."""
        cells = self.prepared[condition.query]
        truth = cells.truth[_which(cells.n_query, condition.n_cells, condition.draw)]
        return bool(((truth >= 0) & (truth < len(cells.classes))).any())

    def digest(self, condition: Condition) -> str:
        """Return the digest of a condition's cells."""
        if condition not in self._digests:
            self._digests[condition] = condition.take(self.prepared[condition.query]).digest()
        return self._digests[condition]

    def split(self, condition: Condition, fold: int, batch_size: int) -> Split:
        """Return which cells a fold trains on and holds out."""
        key = (condition, fold, batch_size)
        if key not in self._splits:
            cells = condition.take(self.prepared[condition.query])
            self._splits[key] = _with_held_out(split_cells(cells, fold, self.folds, batch_size), cells, self.folds)
        return self._splits[key]

    def removable(self, trial: Trial) -> tuple[str, ...]:
        """Return the classes that the reference of a trial can be trained without (control `novel`).

        Raises
        ------
        InputError
            If there is none.
        """
        cells = self.prepared[trial.query]
        sizes = np.bincount(cells.labels[cells.labels >= 0], minlength=len(cells.classes))
        names = tuple(name for name, size in zip(cells.classes, sizes, strict=True) if size >= NOVEL_CELLS)
        if len(cells.classes) < 3 or not names:
            raise InputError(
                f"space.controls: 'novel' trains without each class of {NOVEL_CELLS} cells and more in turn, with two "
                f"others at least. The reference has {len(names)} of that size among {len(cells.classes)} classes. "
                "Leave the control out."
            )
        return names

    def split_of(self, trial: Trial) -> Split:
        """Return which cells a trial trains on and holds out."""
        return self.split(self.of(trial), trial.replicate.fold, trial.settings.scvi.batch_size)

    def steps(self, condition: Condition, fold: int, batch_size: int) -> int:
        """Return the optimiser steps of one joint epoch."""
        return math.ceil(self.split(condition, fold, batch_size).train.size / batch_size)

    def query_steps(self, condition: Condition, fold: int, batch_size: int) -> int:
        """Return the optimiser steps of one epoch of surgery."""
        rows = query_rows(self.split(condition, fold, batch_size), batch_size).size
        if not rows:
            raise InputError(
                f"query_cells: surgery trains on query cells alone, and of the {condition.n_cells} of query "
                f"{condition.query!r} none is left (a minibatch of one cell is left out). Use more of them."
            )
        return math.ceil(rows / batch_size)

    def trained_on(self, trial: Trial) -> Condition:
        """Return the cells that scVI and scANVI meet: before surgery the reference alone."""
        condition = self.of(trial)
        return replace(condition, n_cells=0, draw=0) if trial.settings.scanvi.protocol == "surgery" else condition

    def epochs(self, trial: Trial) -> tuple[int, int]:
        """Return the epochs of scVI and scANVI: as stated, or as many as match the steps of the largest condition."""
        settings, fold = trial.settings, trial.replicate.fold
        ratio = 1.0
        if settings.budget == "steps" and settings.scanvi.protocol == "joint":
            size = settings.scvi.batch_size
            ratio = max(self.steps(one, fold, size) for one in self.designed) / self.steps(self.of(trial), fold, size)
        return max(1, round(settings.scvi.max_epochs * ratio)), max(1, round(settings.scanvi.max_epochs * ratio))
