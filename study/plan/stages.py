"""Trials merged into stages: what is trained once and shared, and what is still to train.

A stage is one training, read at one or more epochs. A trial is the chain of stages that leads to it.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from study.config import Level, Settings
from study.plan.condition import Condition
from study.plan.factors import Factor, Levels
from study.plan.trials import Replicate, Trial

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
    leave
        Whether what it needs to go on is kept at its end, for later epochs.
    begun
        Epochs that it has already been trained; it goes on from there.
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
    leave: bool = False
    begun: int = 0

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epoch levels to read, ascending; the last one is its length."""
        return tuple(sorted({*self.trials, *self.keep}))

    @property
    def length(self) -> int:
        """Optimiser steps that it trains."""
        return self.training * self.steps_per_epoch

    @property
    def training(self) -> int:
        """Epochs that it trains."""
        return self.epochs[-1] - self.begun

    @property
    def block(self) -> int:
        """Its replicate."""
        return self.replicate.index

    @property
    def likeness(self) -> tuple[Hashable, ...]:
        """What stages have in common that can train as one network.

        Cells, steps and epochs, and the shapes of their networks; they differ in replicate, or in numbers.
        """
        scvi, scanvi = self.settings.scvi, self.settings.scanvi
        one = scvi.model_copy(update={"max_epochs": 1, "dropout_rate": 0.5 if scvi.dropout_rate else 0.0})
        shapes = [one.model_dump_json()]
        if self.kind != "pretraining":
            shapes += [str(scanvi.linear_classifier), scanvi.extra.model_dump_json()]
        return self.kind, self.condition, self.steps_per_epoch, self.epochs[-1], *shapes


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

    @property
    def point(self) -> Levels:
        """Its design point: each factor with its level."""
        return self.trial.levels

    @property
    def settings(self) -> Settings:
        """Its settings, resolved."""
        return self.trial.settings

    @property
    def query(self) -> str:
        """Name of its query."""
        return self.trial.query

    @property
    def replicate(self) -> Replicate:
        """Its replicate: a training seed with one set of held-out cells."""
        return self.trial.replicate

    @property
    def control(self) -> str:
        """Name of the control that it belongs to; empty for a trial of the table."""
        return self.trial.control


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
    def stage_by_key(self) -> dict[str, Stage]:
        """Stage by key."""
        return {stage.key: stage for stage in self.stages}

    @cached_property
    def by_key(self) -> dict[str, PlannedTrial]:
        """Trial of the table by key."""
        return {trial.key: trial for trial in self.trials}

    @cached_property
    def all_by_key(self) -> dict[str, PlannedTrial]:
        """Trial by key, of the table and of the controls."""
        return {**{trial.key: trial for trial in reversed(self.controls)}, **self.by_key}

    @property
    def replicates(self) -> int:
        """Number of replicates."""
        return len({trial.replicate.index for trial in self.trials})

    @property
    def epochs_separate(self) -> int:
        """Epochs if every trial trained everything for itself."""
        return sum(epoch for trial in self.all_by_key.values() for _, epoch in trial.chain)

    @property
    def epochs_shared(self) -> int:
        """Epochs that the stages train."""
        return sum(stage.epochs[-1] for stage in self.stages)

    @property
    def steps_separate(self) -> int:
        """Optimiser steps if every trial trained everything for itself."""
        return sum(trial.steps for trial in self.all_by_key.values())

    @property
    def steps_shared(self) -> int:
        """Optimiser steps that the stages train."""
        return sum(stage.length for stage in self.stages)

    def missing(
        self, done: Collection[str], kept: Collection[tuple[str, int]], halted: Mapping[str, int] | None = None
    ) -> tuple[Stage, ...]:
        """Return the stages still to train, each cut to the epochs still needed.

        Parameters
        ----------
        done
            Keys of trials with a result.
        kept
            (stage key, epoch) of the weights on disk.
        halted
            The epoch from which a stage can go on, by its key.
        """
        keep: dict[str, set[int]] = {}
        wanted: dict[str, dict[int, str]] = {}
        for trial in self.all_by_key.values():
            if trial.key in done or not trial.chain:
                continue
            leaf, epoch = trial.chain[-1]
            wanted.setdefault(leaf, {})[epoch] = trial.key
            for parent, parent_epoch in reversed(trial.chain[:-1]):
                if (parent, parent_epoch) in kept:
                    break
                keep.setdefault(parent, set()).add(parent_epoch)
        cut = (
            replace(stage, trials=wanted.get(stage.key, {}), keep=frozenset(keep.get(stage.key, ())))
            for stage in self.stages
            if stage.key in wanted or stage.key in keep
        )
        begun = halted or {}
        return tuple(
            replace(one, begun=begun[one.key]) if begun.get(one.key, one.epochs[0]) < one.epochs[0] else one
            for one in cut
        )
