"""Trials into a tree of stages: what is trained once and shared, what it costs, and where chance enters.

Trials that share data, scVI settings, seed and held-out cells share one pretraining; those that differ only in
`scanvi.max_epochs` are snapshots of one fine-tuning. A key is a hash over everything that can change the result, so
equal keys mean equal results, and the key of a child contains that of its parent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from study.audit import audit
from study.condition import Condition, Conditions
from study.config import InputError, Level, Settings, StudyConfig, dump
from study.data import Cells
from study.design import Factor, Replicate, Trial, controls_of, factors_of, key_of, trials_of
from study.schedule import in_order

__all__ = ["Condition", "Plan", "PlannedTrial", "Stage", "Stratum", "plan", "strata"]

Kind = Literal["pretraining", "fine-tuning", "surgery"]


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
    digest
        Of its condition's cells.
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
    digest: str

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epoch levels to read, ascending; the last one is its length."""
        return tuple(sorted({*self.trials, *self.keep}))

    @property
    def length(self) -> int:
        """Optimiser steps that it trains."""
        return self.epochs[-1] * self.steps_per_epoch

    @property
    def block(self) -> int:
        """Its replicate."""
        return self.replicate.index


@dataclass(frozen=True)
class PlannedTrial:
    """A trial with its key, and the chain of (stage key, epoch) that leads to it (none for logistic regression)."""

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
    """All trials of a study and the stages they need, whole replicates first, in each the longest path first.

    Attributes
    ----------
    trials
        The table: what is attributed and chosen from.
    controls
        Trials beside it; some may be trials of the table as well.
    notes
        The schedule audit before launch.
    """

    factors: tuple[Factor, ...]
    trials: tuple[PlannedTrial, ...]
    stages: tuple[Stage, ...]
    folds: int
    notes: tuple[str, ...]
    controls: tuple[PlannedTrial, ...] = ()

    @cached_property
    def stage(self) -> dict[str, Stage]:
        """Stage by key."""
        return {stage.key: stage for stage in self.stages}

    @cached_property
    def trial(self) -> dict[str, PlannedTrial]:
        """Trial of the table by key."""
        return {trial.key: trial for trial in self.trials}

    @cached_property
    def every(self) -> dict[str, PlannedTrial]:
        """Trial by key, of the table and of the controls."""
        return {**{trial.key: trial for trial in reversed(self.controls)}, **self.trial}

    @property
    def replicates(self) -> int:
        """Number of replicates."""
        return len({trial.trial.replicate.index for trial in self.trials})

    @property
    def epochs_separate(self) -> int:
        """Epochs if every trial trained everything for itself."""
        return sum(epoch for trial in self.every.values() for _, epoch in trial.chain)

    @property
    def epochs_shared(self) -> int:
        """Epochs that the stages train."""
        return sum(stage.epochs[-1] for stage in self.stages)

    @property
    def steps_separate(self) -> int:
        """Optimiser steps if every trial trained everything for itself."""
        return sum(trial.steps for trial in self.every.values())

    @property
    def steps_shared(self) -> int:
        """Optimiser steps that the stages train."""
        return sum(stage.length for stage in self.stages)

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
        for trial in self.every.values():
            if trial.key in done or not trial.chain:
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
    conditions = Conditions(config, prepared, trials)
    made = merge(factors_of(config.space, queries), trials, conditions, controls_of(config, queries))
    refuse_twice(made.trials)
    return made


def merge(
    factors: tuple[Factor, ...], trials: Sequence[Trial], conditions: Conditions, beside: Sequence[Trial] = ()
) -> Plan:
    """Merge trials of the table, and of controls beside it, into stages."""
    stages: dict[str, Stage] = {}
    planned = [plan_trial(trial, conditions, stages) for trial in trials]
    controls = _plan_controls(beside, conditions, stages)
    notes = audit(factors, trials, conditions)
    return Plan(factors, tuple(planned), in_order(tuple(stages.values())), conditions.folds, notes, tuple(controls))


def plan_trial(trial: Trial, conditions: Conditions, stages: dict[str, Stage]) -> PlannedTrial:
    """Find the chain of stages of one trial and add what is new of it to the stages."""
    settings, replicate = trial.settings, trial.replicate
    condition, trained_on = conditions.of(trial), conditions.trained_on(trial)
    surgery = settings.scanvi.protocol == "surgery"
    if surgery and condition.cells == 0:
        raise InputError("scanvi.protocol: surgery maps a query onto a reference; the query 'none' has no cells.")
    size, fold = settings.scvi.batch_size, replicate.fold
    epochs = conditions.epochs(trial)
    scvi = dump(settings.scvi.model_copy(update={"max_epochs": 1}))
    # What surgery starts from is a joint training like any other, on the reference alone.
    scanvi = dump(settings.scanvi.model_copy(update={"max_epochs": 1, "surgery_epochs": 1, "protocol": "joint"}))
    where: list[tuple[Kind, Condition, int, Any]] = [
        ("pretraining", trained_on, epochs[0], scvi),
        ("fine-tuning", trained_on, epochs[1], scanvi),
    ]
    if surgery:
        where.append(("surgery", condition, settings.scanvi.surgery_epochs, {}))
    # The control `repeat` is the same training in another stage.
    root = [conditions.numerics, replicate.seed, fold, conditions.folds, *["again"] * (trial.control == "repeat")]
    chain: list[tuple[str, int]] = []
    steps = 0
    for kind, cells, level, values in where:
        digest = conditions.digest(cells)
        key = key_of(kind, chain[-1] if chain else root, digest, values)
        parent = chain[-1][0] if chain else None
        before = tuple(epoch for _, epoch in chain)
        chain.append((key, level))
        leaf = kind == where[-1][0]
        trials = {level: key_of("trial", chain[-1])} if leaf else {}
        keep = frozenset() if leaf else frozenset({level})
        if key in stages:
            known = stages[key]
            stages[key] = replace(known, trials={**known.trials, **trials}, keep=known.keep | keep)
        else:
            each = (conditions.query_steps if kind == "surgery" else conditions.steps)(cells, fold, size)
            folds = conditions.folds
            stages[key] = Stage(
                key, kind, parent, before, cells, settings, replicate, folds, trials, keep, each, digest
            )
        steps += level * stages[key].steps_per_epoch
    return PlannedTrial(key_of("trial", chain[-1]), trial, condition, tuple(chain), steps)


def _plan_controls(trials: Sequence[Trial], conditions: Conditions, stages: dict[str, Stage]) -> Sequence[PlannedTrial]:
    """Plan the trials of the controls into the same stages."""
    planned = []
    size = 0
    for trial in trials:
        if trial.control == "base":
            size = conditions.of(trial).cells
        elif trial.control == "self":
            if size == 0:
                raise InputError("space.controls: 'self' imitates the size of the base trial's query, which is 'none'.")
            trial = replace(trial, settings=trial.settings.model_copy(update={"query_cells": size, "query_draw": 0}))
        planned.append((_plan_logistic if trial.control == "logistic" else plan_trial)(trial, conditions, stages))
    return planned


def _plan_logistic(trial: Trial, conditions: Conditions, stages: dict[str, Stage]) -> PlannedTrial:
    """Logistic regression needs no stage: it is fitted on the reference alone, in seconds."""
    alone = replace(conditions.of(trial), cells=0, draw=0)
    key = key_of("logistic", conditions.digest(alone), trial.replicate.fold, conditions.folds)
    return PlannedTrial(key, trial, alone, (), 0)


def refuse_twice(planned: Sequence[PlannedTrial]) -> None:
    """Raise `InputError` if two trials of the table are the same."""
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
