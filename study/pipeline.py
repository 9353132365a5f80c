"""A study from configuration to verdict: open it, train what is missing, analyse what is there.

Running is resuming: a trial with a result is done, and only what is missing is trained.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import yaml

from study import files, report, results, search, sweep, tracking
from study.attribution import attribute_study
from study.cells import Cells
from study.check import check
from study.config import Crossed, InputError, StudyConfig, dump, load
from study.controls import ControlResult, judge
from study.controls import frames as control_frames
from study.cost import Prediction, predict
from study.data import query_names
from study.design import controls_of, trials_of
from study.evaluate import OVERALL
from study.findings import Attribution, StudyAttribution
from study.flips import find as find_flips
from study.logistic import fit_logistic
from study.matching import matching
from study.plan import Plan, Stage, Stratum, plan, strata
from study.precision import ASSUMED, Precision, assumptions_from, expected_precision
from study.results import Result
from study.search import NOT_EXPLAINED, Search
from study.status import Account, alone, kept
from study.twins import prepare
from study.verdict import ReplicateCost, Verdict, verdict

log = logging.getLogger(__name__)
Show = Callable[[Account], None]
ABANDONED = 3600  # seconds after which a half-written file of cells is nobody's


@dataclass(frozen=True)
class Study:
    """A study as designed: its cells and its plan; of a search, as far as its results tell."""

    config: StudyConfig
    queries: tuple[str, ...]
    cells: Mapping[str, Cells]
    plan: Plan
    search: Search | None = None


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
        return {key: reason for key, reason in self.failures.items() if key in plan.trial}


@dataclass(frozen=True)
class Attributed:
    """Some outcomes of a study: the table that was attributed, what explains it, and a verdict each."""

    counts: pd.DataFrame
    attribution: StudyAttribution
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Analysis:
    """What the finished trials of the table say, and how the controls beside it came out.

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
    table: pd.DataFrame
    attribution: StudyAttribution | None
    verdicts: tuple[Verdict, ...]
    controls: tuple[ControlResult, ...]
    report: Path
    search: Search | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended; trials of controls are counted with the others.

    Attributes
    ----------
    behind
        Why MLflow does not show all of it; empty if it does.
    """

    already: int
    trained: int
    failures: Mapping[str, str]
    waiting: int
    seconds: float
    analysis: Analysis
    behind: str

    @property
    def complete(self) -> bool:
        """Whether every trial has a result."""
        return not self.failures and not self.waiting


def open_study(config: StudyConfig) -> Study:
    """Prepare the cells of a study and plan it.

    Raises
    ------
    InputError
        If the data or the design cannot be used.
    """
    if config.scvi.extra or config.scanvi.extra:
        # Imported here, because scvi-tools takes seconds and most plans need nothing of it.
        from study.train import check_extra

        check_extra(config)
    queries = query_names(config.data)
    every = (*trials_of(config, queries), *controls_of(config, queries))
    used = list(dict.fromkeys(trial.query for trial in every))
    with nothing_left_if_refused(config):
        cells = prepare(config.data, used, config.directory / "counts")
        if config.space.design == "search":
            begun = search.begin(config, cells, queries)
            return Study(config, queries, cells, begun.plan, begun)
        return Study(config, queries, cells, plan(config, cells, queries))


def most_of(study: Study) -> Study:
    """Return a study with all that it can come to train: of a search, candidates are made up for that."""
    if study.search is None:
        return study
    return replace(study, plan=search.most(study.config, study.queries, study.search.conditions))


@contextmanager
def nothing_left_if_refused(config: StudyConfig) -> Iterator[None]:
    """Remove the cells that were prepared inside, if what is done with them is refused before anything is trained."""
    counts = config.directory / "counts"
    folders = (counts, counts.parent, counts.parent.parent)
    there = {path for path in folders if path.exists()} | set(counts.glob("*"))
    try:
        yield
    except InputError:
        trained = any((config.directory / "trials").glob("*"))
        for folder in () if trained else set(counts.glob("*")) - there:
            shutil.rmtree(folder)
        for folder in folders:
            if folder not in there and folder.exists() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def run(config: StudyConfig, show: Show, command: str = "") -> Outcome:
    """Train what is missing of a study, on Ray, mirrored into MLflow; then analyse it.

    Parameters
    ----------
    config
        The study.
    show
        Called whenever something changed.
    command
        The command that this is, for the report's provenance.

    Raises
    ------
    InputError
        If the configuration or data cannot be used, or another run of this study is going on.
    files.WritingError
        If something cannot be written; what is finished is kept.
    """
    with nothing_left_if_refused(config):
        return _run(config, show, command)


def _run(config: StudyConfig, show: Show, command: str) -> Outcome:
    start = time.perf_counter()
    study = open_study(config)
    with alone(config):
        for name in ("trials", "stages"):
            files.tidy(config.directory / name)
        # Another command may prepare the cells of this study just now, without its lock.
        files.tidy(config.directory / "counts", untouched=ABANDONED)
        keys = list(study.plan.every)
        before = results.read_all(config.directory, keys)
        missing = study.plan.missing(before.keys(), results.kept_states(config.directory, study.plan))
        _warn_of_other_versions(before)
        # Ray first: what does not fit the cluster is refused before MLflow hears of it.
        workers = sweep.cluster(config.resources) if missing else nullcontext()
        account = Account(len(before), 0, len(keys), stages_total=len(missing), steps_total=_steps(missing))
        with (
            workers,
            tracking.Projection(config, study.plan, study.cells) as projection,
            kept(config.directory, command, account) as tell,
        ):
            files.write(config.directory / "config.yaml", yaml.safe_dump(dump(config), sort_keys=False).encode())
            for result in before.values():
                projection.project(result)
            while missing:
                account = _sweep(study, missing, projection, account, _both(tell, show))
                study, missing, account = _further(study, account)
                if missing:
                    projection.extend(study.plan)
            _fit(study, before, projection)
            analysis = analyse(study, command)
            projection.attach([config.directory / "config.yaml", analysis.report, *_tables(config)])
            done = len(analysis.results) + len(analysis.beside)
            keys = list(study.plan.every)
            tell(replace(account, done=done, failed=len(analysis.failures), total=len(keys), stages_running=0))
    waiting = len(keys) - done - len(analysis.failures)
    seconds = time.perf_counter() - start
    return Outcome(len(before), done - len(before), analysis.failures, waiting, seconds, analysis, projection.behind)


def _fit(study: Study, before: Mapping[str, Result], projection: tracking.Projection) -> None:
    """Fit what needs no training stage: the logistic regressions that are missing."""
    for planned in study.plan.every.values():
        if planned.trial.control == "logistic" and planned.key not in before:
            found = fit_logistic(planned, study.cells[planned.condition.query], study.plan.folds)
            results.write_result(study.config.directory, *found)
            projection.project(found[0])


def _sweep(
    study: Study, missing: Sequence[Stage], projection: tracking.Projection, first: Account, show: Show
) -> Account:
    """Train the missing stages; project each trial as it ends; remember what failed; return the last account."""
    directory = study.config.directory

    def finished(stage: Stage) -> None:
        for result in results.read_all(directory, stage.trials.values()).values():
            projection.project(result)

    def progress(tree: sweep.Tree) -> None:
        try:
            show(_account(tree, first))
        except files.WritingError as error:
            tree.unwritten = tree.unwritten or str(error)

    tree = sweep.run(missing, study.cells, directory, study.config.resources, finished, progress)
    for stage in tree.stages:
        if tree.state[stage.key] != "done":
            finished(stage)  # what was read from it before it ended
        for key in stage.trials.values():
            if stage.key in tree.reasons and results.read_result(directory, key) is None:
                results.write_failure(directory, key, tree.reasons[stage.key])
                projection.project_failure(key, tree.reasons[stage.key])
    if tree.unwritten:
        raise files.WritingError(tree.unwritten)
    return _account(tree, first)


def _further(study: Study, account: Account) -> tuple[Study, tuple[Stage, ...], Account]:
    """Return what a search trains after a sweep, with the account to go on from; nothing if it was interrupted."""
    if study.search is None:
        return study, (), account
    conditions, recall = study.search.conditions, study.search.recall
    found = search.follow(study.config, study.queries, conditions, recall)
    study = replace(study, plan=found.plan, search=found)
    if account.stages_done + account.stages_failed < account.stages_total:
        return study, (), account
    # What failed has been tried in this run.
    settled = {key for key in study.plan.every if recall(key) is not None}
    missing = study.plan.missing(settled, results.kept_states(study.config.directory, study.plan))
    stages, steps = account.stages_total + len(missing), account.steps_total + _steps(missing)
    return study, missing, replace(account, total=len(study.plan.every), stages_total=stages, steps_total=steps)


def _both(first: Show, second: Show) -> Show:
    def show(account: Account) -> None:
        first(account)
        second(account)

    return show


def _account(tree: sweep.Tree, first: Account) -> Account:
    """How far a sweep is, from the account that it began with."""
    done = [stage for stage in tree.stages if tree.state[stage.key] == "done"]
    failed = [stage for stage in tree.stages if tree.state[stage.key] in ("failed", "blocked")]
    return replace(
        first,
        done=first.done + sum(len(stage.trials) for stage in done),
        failed=first.failed + sum(len(stage.trials) for stage in failed),
        stages_done=first.stages_done + len(done),
        stages_running=tree.count("running"),
        stages_failed=first.stages_failed + len(failed),
        steps_done=first.steps_done + _steps(done),
    )


def _steps(stages: Sequence[Stage]) -> int:
    return sum(stage.length for stage in stages)


def read_finished(study: Study) -> Finished:
    """Read what is finished of a study, and why trials failed."""
    directory, plan = study.config.directory, study.plan
    every = results.read_all(directory, plan.every)
    failures = results.read_failures(directory, [key for key in plan.every if key not in every])
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
    used = _of_whole_replicates(study.plan, done.results, done.failures_of(study.plan))
    if not used:
        return None
    counts = results.counts(study.plan, used, outcomes)
    attribution = attribute_study(counts, study.plan.factors, _strata(study))
    cost = _replicate_cost(study)
    return Attributed(counts, attribution, tuple(verdict(attribution, outcome, cost) for outcome in outcomes))


def analyse(study: Study, command: str = "") -> Analysis:
    """Attribute what is finished, judge it, and write tables and report.

    Replicates that are still being trained are left out, so that what was stopped is a smaller balanced study; trials
    that failed stay missing, and attribution says what follows.
    """
    if study.search is not None:
        return _analyse_search(study, study.search, command)
    config = study.config
    done = read_finished(study)
    found, failures = done.results, done.failures_of(study.plan)
    table = results.table(study.plan, found)
    frames = {"trials": table, "probes": results.probes(study.plan, found)}
    attributed = explain(study, done, config.outcomes)
    attribution, verdicts = (attributed.attribution, attributed.verdicts) if attributed else (None, ())
    if attributed:
        frames |= {"counts": attributed.counts, **attributed.attribution.to_frames()}
        frames |= {"verdicts": verdict_frame(verdicts)}
    read = partial(results.read_predictions, config.directory)
    controls = judge(study.plan, {**found, **done.beside}, done.failures, read, study.cells)
    frames |= control_frames(controls) if controls else {}
    flips = find_flips(study.plan, found, read, next(iter(study.cells.values())))
    frames |= flips.frames() if flips else {}
    matched = matching(config.data, study.plan, found)
    frames |= {"matching": matched} if len(matched) else {}
    for name, frame in frames.items():
        files.write(config.directory / "tables" / f"{name}.csv", frame.to_csv(index=False).encode())
    checks = check(config, tuple(study.cells))
    page = report.render(
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


def _analyse_search(study: Study, found: Search, command: str) -> Analysis:
    """Write tables and report of a search: its candidates and its confirmation, and no shares."""
    config, done = study.config, read_finished(study)
    table = results.table(study.plan, done.results)
    for name, frame in {"trials": table, "probes": results.probes(study.plan, done.results), **found.frames()}.items():
        files.write(config.directory / "tables" / f"{name}.csv", frame.to_csv(index=False).encode())
    checks = check(config, tuple(study.cells))
    page = report.render_search(config, study.plan, done.results, found, study.cells, checks, done.failures, command)
    path = config.directory / "report.html"
    files.write(path, page.encode())
    return Analysis(done.results, {}, done.failures, table, None, (), (), path, found)


def report_of(study: Study, command: str = "") -> Analysis:
    """Analyse what is finished of a study.

    Raises
    ------
    InputError
        If no trial of it has ended.
    """
    directory, keys = study.config.directory, list(study.plan.every)
    if not results.read_all(directory, keys) and not results.read_failures(directory, keys):
        raise InputError(
            f"no trial of study {study.config.name!r} is finished in {directory}. "
            "Run it first, with the same overrides."
        )
    return analyse(study, command)


def expect(study: Study, pilot: str | None) -> Precision:
    """Return how sharp a study will be, from the chance that an earlier one found, or from stated assumptions.

    Parameters
    ----------
    study
        The study to plan.
    pilot
        Name of an earlier study beside it; None: this study's own finished replicates, if there are two.

    Raises
    ------
    InputError
        If there is no such study, or it cannot tell.
    """
    assumptions = ASSUMED
    earlier = study
    if pilot is not None:
        path = study.config.root / pilot / "config.yaml"
        if not path.is_file():
            raise InputError(f"--pilot {pilot}: there is no {path}. Name a study that has been run.")
        earlier = open_study(load(path))
        if earlier.search is not None:
            raise InputError(f"--pilot {pilot}: {NOT_EXPLAINED}")
    found = _earlier_chance(earlier)
    if found is not None:
        assumptions = assumptions_from(found)
    elif pilot is not None:
        raise InputError(f"--pilot {pilot}: it has no attributed result; it needs at least 2 whole replicates.")
    try:
        return expected_precision(study.plan.factors, _strata(study), assumptions)
    except ValueError as error:
        raise InputError(f"--pilot {pilot}: {error} Choose a pilot that varies the same kinds of settings.") from None


def foresee(study: Study, calibrate: bool = False) -> Prediction | None:
    """Return how long the rest of a study takes, from earlier records or steps trained now; None if nothing tells."""
    directory = study.config.directory
    done = results.read_all(directory, study.plan.every)
    missing = study.plan.missing(done.keys(), results.kept_states(directory, study.plan))
    return predict(study.config, study.plan, study.cells, missing, calibrate)


def _earlier_chance(study: Study) -> Attribution | None:
    """What the finished replicates of a study say of held-out recall over all cells; None if they say nothing."""
    found = results.read_all(study.config.directory, [trial.key for trial in study.plan.trials])
    used = _of_whole_replicates(study.plan, found, {})
    if not used or study.config.space.design != "factorial":
        return None
    table = results.counts(study.plan, used, ["heldout/recall"])
    overall = attribute_study(table[table.class_name == OVERALL], study.plan.factors, _strata(study))
    (one,) = overall.attributions
    return None if one.method == "none" else one


def _strata(study: Study) -> tuple[Stratum, ...]:
    return strata(study.plan.factors, study.config.scanvi.protocol)


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


def whole_results(study: Study) -> dict[str, Result]:
    """Return the results of the replicates in which every trial is finished; of a search, every result.

    Raises
    ------
    InputError
        If there is none.
    """
    found = results.read_all(study.config.directory, [trial.key for trial in study.plan.trials])
    if study.search is not None:
        return found
    used = _of_whole_replicates(study.plan, found, {})
    if not used:
        raise InputError(
            f"study {study.config.name!r} has no whole replicate yet ({len(found)} of {len(study.plan.trials)} trials "
            f"in {study.config.directory}). Run it first, with the same overrides."
        )
    return used


def _of_whole_replicates(plan: Plan, found: Mapping[str, Result], failures: Mapping[str, str]) -> dict[str, Result]:
    """Return the results of the replicates in which no trial is still to be trained."""
    unfinished = {t.trial.replicate.index for t in plan.trials if t.key not in found and t.key not in failures}
    return {key: one for key, one in found.items() if plan.trial[key].trial.replicate.index not in unfinished}


def sync(config: StudyConfig) -> int:
    """Rebuild the MLflow experiment of a study from its results; return how many trials it shows.

    Raises
    ------
    InputError
        If MLflow does not take all of it.
    """
    study = open_study(config)
    found = results.read_all(config.directory, study.plan.every)
    failures = results.read_failures(config.directory, [key for key in study.plan.every if key not in found])
    present = [config.directory / name for name in ("config.yaml", "report.html")]
    with alone(config), tracking.Projection(config, study.plan, study.cells) as projection:
        for result in found.values():
            projection.project(result)
        for key, reason in failures.items():
            projection.project_failure(key, reason)
        projection.attach([path for path in (*present, *_tables(config)) if path.is_file()])
    if projection.behind:
        raise InputError(
            f"tracking: MLflow at {tracking.uri_of(config)} does not take all of it ({projection.behind}). "
            "The results are whole; run this again once it does."
        )
    return len(found)


def _tables(config: StudyConfig) -> list[Path]:
    return sorted((config.directory / "tables").glob("*.csv"))


def _warn_of_other_versions(found: Mapping[str, Result]) -> None:
    now = results.versions()
    differ = sorted({name for r in found.values() for name, value in r.made_with.items() if now.get(name) != value})
    if differ:
        log.warning("earlier trials of this study were made with other versions of: %s", ", ".join(differ))
