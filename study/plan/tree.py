"""Trials into a tree of stages: what is trained once and shared, what it costs, and where chance enters.

Trials that share data, scVI settings, seed and held-out cells share one pretraining; those that differ only in
`scanvi.max_epochs` are snapshots of one fine-tuning. A key is a hash over everything that can change the result, so
equal keys mean equal results, and the key of a child contains that of its parent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from study.cells import Cells
from study.config import StudyConfig, dump, written
from study.errors import InputError, few
from study.plan.audit import audit_plan
from study.plan.condition import Condition, Conditions
from study.plan.factors import Factor, factors_of
from study.plan.order import in_order
from study.plan.stages import Kind, Plan, PlannedTrial, Stage
from study.plan.trials import Trial, controls_of, trials_of
from study.seeds import key_of


def plan_study(config: StudyConfig, prepared: Mapping[str, Cells], queries: Sequence[str]) -> Plan:
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
        If a level does not fit the data, two design points are the same trial, or an outcome cannot be measured in one.
    """
    trials = trials_of(config, queries)
    conditions = Conditions(config, prepared, trials)
    _refuse_unmeasured(config, conditions)
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
    notes = audit_plan(factors, trials, conditions)
    return Plan(factors, tuple(planned), in_order(tuple(stages.values())), conditions.folds, notes, tuple(controls))


def plan_trial(trial: Trial, conditions: Conditions, stages: dict[str, Stage]) -> PlannedTrial:
    """Find the chain of stages of one trial and add what is new of it to the stages."""
    settings, replicate = trial.settings, trial.replicate
    condition, trained_on = conditions.of(trial), conditions.trained_on(trial)
    surgery = settings.scanvi.protocol == "surgery"
    if surgery and condition.n_cells == 0:
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
    if trial.control == "knn":  # its labels are those of neighbours in the latent space of scVI
        condition, where = trained_on, where[:1]
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
            size = conditions.of(trial).n_cells
        elif trial.control == "novel":
            removed = [replace(trial, removed=name) for name in conditions.removable(trial)]
            planned += [plan_trial(one, conditions, stages) for one in removed]
            continue
        elif trial.control == "self":
            if size == 0:
                raise InputError("space.controls: 'self' imitates the size of the base trial's query, which is 'none'.")
            trial = replace(trial, settings=trial.settings.model_copy(update={"query_cells": size, "query_draw": 0}))
        planned.append((_plan_logistic if trial.control == "logistic" else plan_trial)(trial, conditions, stages))
    return planned


def _plan_logistic(trial: Trial, conditions: Conditions, stages: dict[str, Stage]) -> PlannedTrial:
    """Logistic regression needs no stage: it is fitted on the reference alone, in seconds."""
    alone = replace(conditions.of(trial), n_cells=0, draw=0)
    key = key_of("logistic", conditions.digest(alone), trial.replicate.fold, conditions.folds)
    return PlannedTrial(key, trial, alone, (), 0)


def _refuse_unmeasured(config: StudyConfig, conditions: Conditions) -> None:
    """Raise `InputError` if an outcome on query cells has none to be measured on in some condition of the table."""
    lacking = [one for one in conditions.designed if not conditions.measurable(one)]
    if config.query_outcomes and lacking:
        listed = few([f"{one.query} with {one.n_cells} cells" for one in lacking])
        raise InputError(
            f"outcomes: {', '.join(config.query_outcomes)} needs query cells with a true label that the reference has "
            f"(data.truth_key={config.data.truth_key}), and these conditions have none: {listed}. Fill the column for "
            "them, leave them out of space.factors, or leave the outcome out."
        )


def refuse_twice(planned: Sequence[PlannedTrial]) -> None:
    """Raise `InputError` if two trials of the table are the same."""
    first: dict[str, PlannedTrial] = {}
    for trial in planned:
        twin = first.setdefault(trial.key, trial)
        if twin is not trial:
            differ = [name for name, level in trial.levels.items() if twin.levels[name] != level]
            found = " and ".join(
                f"{name}={written(twin.levels[name])}/{written(trial.levels[name])}" for name in differ
            )
            raise InputError(
                f"space.factors: two design points are the same trial ({found}, query {trial.condition.query!r} with "
                f"{trial.condition.n_cells} cells): the design would count it twice. Drop or change one of the levels."
            )
