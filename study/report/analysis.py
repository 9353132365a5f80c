"""What is finished of a study, explained: tables, verdicts and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from study import files
from study.attribution import StudyAttribution, attribute_study
from study.cells import check_data
from study.config import Crossed
from study.errors import InputError
from study.plan import Plan
from study.report.page import render_report, render_search
from study.studies import NOT_EXPLAINED, Search, Study, strata_of
from study.trials import Result, count_frame, probe_frame, read_all, read_failures, read_predictions, trial_frame
from study.verdict import (
    ControlResult,
    ReplicateCost,
    Verdict,
    control_frames,
    find_flips,
    judge,
    judge_controls,
    matched_spread,
)


@dataclass(frozen=True)
class Finished:
    """What is on disk of a study.

    Attributes
    ----------
    results, beside
        Finished trials by key: of the table, and of controls alone.
    failures
        Reasons of failed trials of either.
    """

    results: Mapping[str, Result]
    beside: Mapping[str, Result]
    failures: Mapping[str, str]

    def failures_of(self, plan: Plan) -> dict[str, str]:
        """Return the reasons of the failed trials of the table."""
        return {key: reason for key, reason in self.failures.items() if key in plan.by_key}


@dataclass(frozen=True)
class Attributed:
    """Some outcomes of a study: the table that was attributed, what explains it, and a verdict each."""

    counts: pd.DataFrame
    attribution: StudyAttribution
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Analysis(Finished):
    """What the finished trials of the table say, and how the controls beside it came out."""

    table: pd.DataFrame
    attribution: StudyAttribution | None
    verdicts: tuple[Verdict, ...]
    controls: tuple[ControlResult, ...]
    report: Path
    search: Search | None = None


def read_finished(study: Study) -> Finished:
    """Read what is finished of a study, and why trials failed."""
    directory, plan = study.config.directory, study.plan
    every = read_all(directory, plan.all_by_key)
    failures = read_failures(directory, [key for key in plan.all_by_key if key not in every])
    found = {trial.key: every[trial.key] for trial in plan.trials if trial.key in every}
    return Finished(found, {key: result for key, result in every.items() if key not in found}, failures)


def explain(study: Study, done: Finished, outcomes: Sequence[str]) -> Attributed | None:
    """Attribute some outcomes over the whole replicates, and judge them; None where no replicate is whole.

    Raises
    ------
    InputError
        If the study is a search.
    """
    if study.search is not None:
        raise InputError(NOT_EXPLAINED)
    used = of_whole_replicates(study.plan, done.results, done.failures_of(study.plan))
    if not used:
        return None
    counts = count_frame(study.plan, used, outcomes)
    attribution = attribute_study(counts, study.plan.factors, strata_of(study))
    cost = _replicate_cost(study)
    return Attributed(counts, attribution, tuple(judge(attribution, outcome, cost) for outcome in outcomes))


def analyse(study: Study, command: str = "") -> Analysis:
    """Attribute what is finished, judge it, and write tables and report.

    Replicates that are still being trained are left out, so that what was stopped is a smaller balanced study; trials
    that failed stay missing, and attribution says what follows.
    """
    return _analyse(study, read_finished(study), command)


def _analyse(study: Study, done: Finished, command: str) -> Analysis:
    if study.search is not None:
        return _analyse_search(study, study.search, done, command)
    config = study.config
    found, failures = done.results, done.failures_of(study.plan)
    table = trial_frame(study.plan, found)
    frames = {"trials": table, "probes": probe_frame(study.plan, found)}
    attributed = explain(study, done, config.outcomes)
    attribution, verdicts = (attributed.attribution, attributed.verdicts) if attributed else (None, ())
    if attributed:
        frames |= {"counts": attributed.counts, **attributed.attribution.to_frames()}
        frames |= {"verdicts": verdict_frame(verdicts)}
    read = partial(read_predictions, config.directory)
    controls = judge_controls(study.plan, {**found, **done.beside}, done.failures, read, study.cells)
    frames |= control_frames(controls) if controls else {}
    flips = find_flips(study.plan, found, read, next(iter(study.cells.values())))
    frames |= flips.frames() if flips else {}
    matched = matched_spread(config.data, study.plan, found)
    frames |= {"matching": matched} if len(matched) else {}
    _write_tables(study, frames)
    checks = check_data(config.data, tuple(study.cells), config.space.n_folds)
    page = render_report(
        config,
        study.plan,
        found,
        attribution,
        verdicts,
        study.cells,
        checks,
        failures,
        command,
        controls=controls,
        flips=flips,
        matched=matched,
    )
    path = config.directory / "report.html"
    files.write(path, page.encode())
    return Analysis(found, done.beside, done.failures, table, attribution, verdicts, controls, path)


def _analyse_search(study: Study, found: Search, done: Finished, command: str) -> Analysis:
    """Write tables and report of a search: its candidates and its confirmation, and no shares."""
    config = study.config
    table = trial_frame(study.plan, done.results)
    _write_tables(study, {"trials": table, "probes": probe_frame(study.plan, done.results), **found.frames()})
    checks = check_data(config.data, tuple(study.cells), config.space.n_folds)
    page = render_search(config, study.plan, done.results, found, study.cells, checks, done.failures, command)
    path = config.directory / "report.html"
    files.write(path, page.encode())
    return Analysis(done.results, {}, done.failures, table, None, (), (), path, found)


def _write_tables(study: Study, frames: Mapping[str, pd.DataFrame]) -> None:
    for name, frame in frames.items():
        files.write(study.config.directory / "tables" / f"{name}.csv", frame.to_csv(index=False).encode())


def report_of(study: Study, command: str = "") -> Analysis:
    """Analyse what is finished of a study.

    Raises
    ------
    InputError
        If no trial of it has ended.
    """
    done = read_finished(study)
    if not (done.results or done.beside or done.failures):
        raise InputError(
            f"no trial of study {study.config.name!r} is finished in {study.config.directory}. "
            "Run it first, with the same overrides."
        )
    return _analyse(study, done, command)


def whole_results(study: Study) -> dict[str, Result]:
    """Return the results of the replicates in which every trial is finished; of a search, every result.

    Raises
    ------
    InputError
        If there is none.
    """
    found = read_all(study.config.directory, [trial.key for trial in study.plan.trials])
    if study.search is not None:
        return found
    used = of_whole_replicates(study.plan, found, {})
    if not used:
        raise InputError(
            f"study {study.config.name!r} has no whole replicate yet ({len(found)} of {len(study.plan.trials)} trials "
            f"in {study.config.directory}). Run it first, with the same overrides."
        )
    return used


def of_whole_replicates(plan: Plan, found: Mapping[str, Result], failures: Mapping[str, str]) -> dict[str, Result]:
    """Return the results of the replicates in which no trial is still to be trained."""
    unfinished = {t.replicate.index for t in plan.trials if t.key not in found and t.key not in failures}
    return {key: one for key, one in found.items() if plan.by_key[key].replicate.index not in unfinished}


def _replicate_cost(study: Study) -> ReplicateCost | None:
    """What one more replicate of the table trains; unknown where replicates are seeds crossed with folds."""
    if isinstance(study.config.space.replicates, Crossed):
        return None  # more of them is a choice between seeds and folds
    keys = {key for trial in study.plan.trials for key, _ in trial.chain}
    stages = [stage for stage in study.plan.stages if stage.key in keys]
    steps = sum(stage.length for stage in stages)
    replicates = study.plan.replicates
    return ReplicateCost(round(len(stages) / replicates), round(steps / replicates))


def verdict_frame(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return one row per outcome and class."""
    return pd.DataFrame([row for one in verdicts for row in one.to_frame().to_dict("records")])
