"""Trials into a tree of stages: what is trained once and shared, what it costs, and where chance enters.

Trials that share data, scVI settings, seed and held-out cells share one pretraining; those that differ only in
`scanvi.max_epochs` are snapshots of one fine-tuning. A key is a hash over everything that can change the result, so
equal keys mean equal results, and the key of a child contains that of its parent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from study.config import InputError, Level, Settings, StudyConfig, dump
from study.data import Cells
from study.design import Factor, Replicate, Trial, factors_of, folds_of, key_of, trials_of
from study.split import Split, labelled_per_epoch, query_rows, split

Kind = Literal["pretraining", "fine-tuning", "surgery"]


@dataclass(frozen=True)
class Condition:
    """A concrete joint set of cells: a query, cut to its first cells."""

    query: str
    cells: int


@dataclass(frozen=True)
class Stage:
    """One training, read at one or more epochs.

    Attributes
    ----------
    parent
        Key of the stage whose weights it starts from.
    before
        Epochs of the stages before it, root first; the parent's weights are read at the last of them.
    trials
        Trial key by epoch level: the results read from it.
    keep
        Epoch levels whose weights are kept for children.
    steps_per_epoch
        Optimiser steps of one epoch.
    """

    key: str
    kind: Kind
    parent: str | None
    before: tuple[int, ...]
    condition: Condition
    settings: Settings
    replicate: Replicate
    folds: int
    trials: Mapping[int, str]
    keep: frozenset[int]
    steps_per_epoch: int

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epoch levels to read, ascending; the last one is its length."""
        return tuple(sorted({*self.trials, *self.keep}))


@dataclass(frozen=True)
class PlannedTrial:
    """A trial with its key, the epochs it really trains, and the chain of (stage key, epoch) that leads to it."""

    key: str
    trial: Trial
    condition: Condition
    chain: tuple[tuple[str, int], ...]
    steps: int

    @property
    def levels(self) -> dict[str, Level]:
        """Level of each factor."""
        return dict(self.trial.levels)


@dataclass(frozen=True)
class Stratum:
    """A level of the stage tree at which chance enters, with the factors that act there."""

    name: str
    label: str
    factors: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """All trials of a study and the stages they need, whole replicates first and long stages first within one."""

    factors: tuple[Factor, ...]
    trials: tuple[PlannedTrial, ...]
    stages: tuple[Stage, ...]
    folds: int
    notes: tuple[str, ...]

    @cached_property
    def stage(self) -> dict[str, Stage]:
        """Stage by key."""
        return {stage.key: stage for stage in self.stages}

    @cached_property
    def trial(self) -> dict[str, PlannedTrial]:
        """Trial by key."""
        return {trial.key: trial for trial in self.trials}

    @property
    def epochs_separate(self) -> int:
        """Epochs if every trial trained everything for itself."""
        return sum(epoch for trial in self.trials for _, epoch in trial.chain)

    @property
    def epochs_shared(self) -> int:
        """Epochs that the stages train."""
        return sum(stage.epochs[-1] for stage in self.stages)

    @property
    def steps_separate(self) -> int:
        """Optimiser steps if every trial trained everything for itself."""
        return sum(trial.steps for trial in self.trials)

    @property
    def steps_shared(self) -> int:
        """Optimiser steps that the stages train."""
        return sum(stage.epochs[-1] * stage.steps_per_epoch for stage in self.stages)

    def missing(self, done: Collection[str], kept: Collection[tuple[str, int]]) -> tuple[Stage, ...]:
        """Return the stages still to train, each cut to the epochs still needed.

        Parameters
        ----------
        done
            Keys of trials with a result.
        kept
            (stage key, epoch) of the weights on disk.
        """
        keep: dict[str, set[int]] = {}
        wanted: dict[str, dict[int, str]] = {}
        for trial in self.trials:
            if trial.key in done:
                continue
            leaf, epoch = trial.chain[-1]
            wanted.setdefault(leaf, {})[epoch] = trial.key
            for parent, parent_epoch in reversed(trial.chain[:-1]):
                if (parent, parent_epoch) in kept:
                    break
                keep.setdefault(parent, set()).add(parent_epoch)
        return tuple(
            replace(stage, trials=wanted.get(stage.key, {}), keep=frozenset(keep.get(stage.key, ())))
            for stage in self.stages
            if stage.key in wanted or stage.key in keep
        )


def plan(config: StudyConfig, prepared: Mapping[str, Cells], queries: Sequence[str]) -> Plan:
    """Merge the trials of a study into stages.

    Parameters
    ----------
    config
        The study.
    prepared
        Prepared cells by query name.
    queries
        Names that a level of `query` may have.

    Raises
    ------
    InputError
        If a level does not fit the data, or two design points are the same trial.
    """
    trials = trials_of(config, queries)
    folds = folds_of(config.space)
    scene = _Scene(config, prepared, folds, trials)
    stages: dict[str, Stage] = {}
    planned = [_plan_trial(trial, scene, stages) for trial in trials]
    _refuse_twice(planned)
    order = {key: position for position, key in enumerate(stages)}
    ranked = sorted(stages.values(), key=lambda s: (s.replicate.index, len(s.before), -_length(s), order[s.key]))
    factors = factors_of(config.space, queries)
    return Plan(factors, tuple(planned), tuple(ranked), folds, tuple(_notes(factors, planned, scene)))


def _length(stage: Stage) -> int:
    return stage.epochs[-1] * stage.steps_per_epoch


class _Scene:
    """What planning asks about the data again and again, computed once per condition and fold."""

    def __init__(self, config: StudyConfig, prepared: Mapping[str, Cells], folds: int, trials: Sequence[Trial]) -> None:
        resources = config.resources
        self.numerics = {"engine": resources.engine, "accelerator": resources.accelerator, "threads": resources.cpus}
        self.prepared = prepared
        self.folds = folds
        self._digests: dict[Condition, str] = {}
        self._splits: dict[tuple[Condition, int, int], Split] = {}
        self.conditions = {self.condition(trial) for trial in trials}

    def condition(self, trial: Trial) -> Condition:
        cells = self.prepared[trial.query]
        wanted = trial.settings.query_cells
        if wanted != "all" and wanted > cells.n_query > 0:
            raise InputError(
                f"query_cells: {wanted} cells of query {trial.query!r} wanted, it has {cells.n_query}. "
                f"Use at most {cells.n_query}, or 'all'."
            )
        return Condition(trial.query, cells.n_query if wanted == "all" else min(wanted, cells.n_query))

    def digest(self, condition: Condition) -> str:
        if condition not in self._digests:
            self._digests[condition] = self.prepared[condition.query].first(condition.cells).digest()
        return self._digests[condition]

    def split(self, condition: Condition, fold: int, batch_size: int) -> Split:
        key = (condition, fold, batch_size)
        if key not in self._splits:
            cells = self.prepared[condition.query].first(condition.cells)
            self._splits[key] = split(cells, fold, self.folds, batch_size)
        return self._splits[key]

    def steps(self, condition: Condition, fold: int, batch_size: int) -> int:
        return math.ceil(self.split(condition, fold, batch_size).train.size / batch_size)

    def query_steps(self, condition: Condition, fold: int, batch_size: int) -> int:
        return math.ceil(query_rows(self.split(condition, fold, batch_size), batch_size).size / batch_size)


def _plan_trial(trial: Trial, scene: _Scene, stages: dict[str, Stage]) -> PlannedTrial:
    """Find the chain of stages of one trial and add what is new of it to the stages."""
    settings, replicate = trial.settings, trial.replicate
    condition = scene.condition(trial)
    surgery = settings.scanvi.protocol == "surgery"
    if surgery and condition.cells == 0:
        raise InputError("scanvi.protocol: surgery maps a query onto a reference; the query 'none' has no cells.")
    trained_on = Condition(condition.query, 0) if surgery else condition
    bs, fold = settings.scvi.batch_size, replicate.fold
    per_epoch = scene.steps(trained_on, fold, bs)
    ratio = 1.0
    if settings.budget == "steps" and not surgery:
        ratio = max(scene.steps(other, fold, bs) for other in scene.conditions) / per_epoch
    scvi = dump(settings.scvi.model_copy(update={"max_epochs": 1}))
    scanvi = dump(settings.scanvi.model_copy(update={"max_epochs": 1, "surgery_epochs": 1}))
    where: list[tuple[Kind, Condition, int, Any]] = [
        ("pretraining", trained_on, max(1, round(settings.scvi.max_epochs * ratio)), scvi),
        ("fine-tuning", trained_on, max(1, round(settings.scanvi.max_epochs * ratio)), scanvi),
    ]
    if surgery:
        where.append(("surgery", condition, settings.scanvi.surgery_epochs, {}))
    chain: list[tuple[str, int]] = []
    steps = 0
    for kind, cells, epochs, values in where:
        base = chain[-1] if chain else [scene.numerics, replicate.seed, fold, scene.folds]
        key = key_of(kind, base, scene.digest(cells), values)
        parent = chain[-1][0] if chain else None
        before = tuple(epoch for _, epoch in chain)
        chain.append((key, epochs))
        leaf = kind == where[-1][0]
        trials = {epochs: key_of("trial", chain[-1])} if leaf else {}
        keep = frozenset() if leaf else frozenset({epochs})
        if key in stages:
            known = stages[key]
            stages[key] = replace(known, trials={**known.trials, **trials}, keep=known.keep | keep)
        else:
            each = scene.query_steps(cells, fold, bs) if kind == "surgery" else per_epoch
            stages[key] = Stage(key, kind, parent, before, cells, settings, replicate, scene.folds, trials, keep, each)
        steps += epochs * stages[key].steps_per_epoch
    return PlannedTrial(key_of("trial", chain[-1]), trial, condition, tuple(chain), steps)


def _refuse_twice(planned: Sequence[PlannedTrial]) -> None:
    first: dict[str, PlannedTrial] = {}
    for trial in planned:
        twin = first.setdefault(trial.key, trial)
        if twin is not trial:
            differ = [name for name, level in trial.levels.items() if twin.levels[name] != level]
            found = " and ".join(f"{name}={twin.levels[name]}/{trial.levels[name]}" for name in differ)
            raise InputError(
                f"space.factors: two design points are the same trial ({found}, query {trial.condition.query!r} with "
                f"{trial.condition.cells} cells): the design would count it twice. Drop or change one of the levels."
            )


def strata(factors: Sequence[Factor], protocol: str = "joint") -> tuple[Stratum, ...]:
    """Return the levels of the stage tree that a design has, root first.

    Parameters
    ----------
    factors
        The factors of the design.
    protocol
        With 'surgery' the data acts last, when the query is mapped onto a finished reference.
    """
    last = protocol == "surgery"

    def at(factor: Factor) -> str:
        if factor.role == "data" or factor.name == "scanvi.surgery_epochs":
            return "surgery" if last else "pretraining"
        if factor.name in ("scvi.max_epochs", "budget"):
            return "pretraining snapshots"
        if factor.name == "scanvi.max_epochs":
            return "fine-tuning snapshots"
        return "pretraining" if factor.name.startswith("scvi.") else "fine-tuning"

    labels = {
        "pretraining": "training scVI again",
        "pretraining snapshots": "where scVI stops",
        "fine-tuning": "fine-tuning again",
        "fine-tuning snapshots": "where scANVI stops",
        "surgery": "mapping the query again",
    }
    found = [Stratum(name, label, tuple(f.name for f in factors if at(f) == name)) for name, label in labels.items()]
    return tuple(stratum for stratum in found if stratum.factors)


def _notes(factors: Sequence[Factor], planned: Sequence[PlannedTrial], scene: _Scene) -> list[str]:
    """Say what is confounded in a design, or changes nothing, before anything is trained."""
    notes = []
    by_query: dict[str, set[int]] = {}
    for trial in planned:
        by_query.setdefault(trial.condition.query, set()).add(trial.condition.cells)
    sizes = {query: max(cells) for query, cells in by_query.items()}
    if len(set(sizes.values())) > 1 and not {"none"} >= set(sizes):
        listed = ", ".join(f"{query} {size}" for query, size in sizes.items())
        notes.append(
            f"query size is nested in the query ({listed} cells): 'which query' includes its size and the number of "
            "optimiser steps. Make `query_cells` a factor with a size that all queries reach, to separate them."
        )
    steps = sorted(
        {scene.steps(t.condition, t.trial.replicate.fold, t.trial.settings.scvi.batch_size) for t in planned}
    )
    budgets = {trial.trial.settings.budget for trial in planned}
    if steps[-1] > steps[0] and "epochs" in budgets:
        notes.append(
            f"an epoch has {steps[0]} to {steps[-1]} optimiser steps, depending on the condition: fewer query cells "
            "also means less training. `budget=steps` matches the steps."
        )
    epochs = sorted({trial.chain[0][1] for trial in planned})
    if len(epochs) > 1:
        notes.append(
            f"scVI trains {epochs[0]} to {epochs[-1]} epochs: its KL weight warms up over 400 epochs, so it ends at "
            f"{min(1, epochs[0] / 400):.2f} to {min(1, epochs[-1] / 400):.2f}, and epochs and KL weight move together."
        )
    notes.extend(_sampling_notes(factors, planned, scene))
    left = Counter(
        trial.condition
        for trial in planned
        if scene.split(trial.condition, trial.trial.replicate.fold, trial.trial.settings.scvi.batch_size).left_out.size
        == 1
    )
    if left:
        listed = ", ".join(f"{c.query} with {c.cells} cells" for c in left)
        notes.append(f"one training cell is left out, or it would be a minibatch of its own ({listed}).")
    return notes


def _sampling_notes(factors: Sequence[Factor], planned: Sequence[PlannedTrial], scene: _Scene) -> list[str]:
    """Say which levels of `n_samples_per_label` draw the same cells."""
    levels = next((f.levels for f in factors if f.name == "scanvi.n_samples_per_label"), ())
    first = planned[0]
    parts = scene.split(first.condition, first.trial.replicate.fold, first.trial.settings.scvi.batch_size)
    cells = scene.prepared[first.condition.query]
    drawn: dict[tuple[int, ...], list[Level]] = {}
    for level in levels:
        if isinstance(level, int) or level == "all":
            counts = labelled_per_epoch(cells, parts, "all" if level == "all" else int(level))
            drawn.setdefault(tuple(counts.values()), []).append(level)
    return [
        f"scanvi.n_samples_per_label: levels {', '.join(map(str, same))} draw the same cells, so they change nothing."
        for same in drawn.values()
        if len(same) > 1
    ]
