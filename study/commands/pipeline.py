"""A study from configuration to verdict: train what is missing, analyse what is there, show it in MLflow.

Running is resuming: a trial with a result is done, and only what is missing is trained.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from study import files
from study.cells import class_names
from study.commands.recalls import Recalls, extremes, note
from study.commands.refusal import nothing_left_if_refused
from study.config import StudyConfig, dump
from study.errors import WritingError
from study.plan import Stage
from study.report import Analysis, analyse, read_finished, take_look, write_report
from study.studies import Recall, Study, following, looked_at, open_study, recall_reader, trusted
from study.sweep import Account, Tree, alone, cluster, kept_account, train_stages
from study.tracking import Projection
from study.trials import (
    Result,
    fit_logistic,
    kept_states,
    read_all,
    read_failures,
    read_result,
    write_failure,
    write_result,
)
from study.trust import Labels
from study.versions import versions

log = logging.getLogger(__name__)
Show = Callable[[Account], None]
ABANDONED = 3600  # seconds after which a half-written file of cells is nobody's


@dataclass(frozen=True)
class Outcome:
    """How a run ended; trials of controls are counted with the others.

    Attributes
    ----------
    page
        The report.
    behind
        Why MLflow does not show all of it; empty if it does.
    """

    already: int
    trained: int
    failures: Mapping[str, str]
    waiting: int
    seconds: float
    analysis: Analysis
    page: Path
    behind: str

    @property
    def complete(self) -> bool:
        """Whether every trial has a result."""
        return not self.failures and not self.waiting


def run_study(config: StudyConfig, show: Show, command: str = "") -> Outcome:
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
    WritingError
        If something cannot be written; what is finished is kept.
    """
    with nothing_left_if_refused(config.directory) as wrote:
        return _run(config, show, command, wrote)


def _run(config: StudyConfig, show: Show, command: str, wrote: Callable[[Path], None]) -> Outcome:
    start = time.perf_counter()
    study = open_study(config, wrote)
    with alone(config.directory):
        study = _looked(study)  # an earlier run may have ended before its look
        for name in ("trials", "stages"):
            files.tidy(config.directory / name)
        # Another command may prepare the cells of this study just now, without its lock.
        files.tidy(config.directory / "counts", untouched=ABANDONED)
        keys = list(study.plan.all_by_key)
        before = read_all(config.directory, keys)
        missing = study.plan.missing(before.keys(), kept_states(config.directory, study.plan))
        _warn_of_other_versions(before)
        # Ray first: what does not fit the cluster is refused before MLflow hears of it.
        workers = cluster(config.resources) if missing else nullcontext()
        account = Account(len(before), 0, len(keys), stages_total=len(missing), steps_total=_steps(missing))
        with (
            workers,
            Projection(config, study.plan, class_names(study.cells)) as projection,
            kept_account(config.directory, command, account) as tell,
        ):
            files.write(config.directory / "config.yaml", yaml.safe_dump(dump(config), sort_keys=False).encode())
            recall, recalls = recall_reader(config.directory), Recalls()
            follow = following(study, recall)
            account = replace(account, done=account.done + _fit(study, projection))
            for result in before.values():
                projection.project(result)
                note(recalls, result)
            while missing:
                account = _sweep(study, missing, projection, account, _both(tell, show), recalls)
                study, missing, account = _further(_looked(follow()), recall, account)
                if missing:
                    projection.extend(study.plan)
                    account = replace(account, done=account.done + _fit(study, projection))
            analysis = analyse(study, read_finished(study))
            page = write_report(study, analysis, command)
            _show_trust(projection, analysis.trust)
            projection.mark_collapsed(dict.fromkeys(analysis.collapses["trial_key"]) if len(analysis.collapses) else ())
            projection.attach([config.directory / "config.yaml", page, *_tables(config)])
            done = len(analysis.results) + len(analysis.beside)
            keys = list(study.plan.all_by_key)
            tell(replace(account, done=done, failed=len(analysis.failures), total=len(keys), stages_running=0))
    waiting = len(keys) - done - len(analysis.failures)
    seconds = time.perf_counter() - start
    return Outcome(
        len(before), done - len(before), analysis.failures, waiting, seconds, analysis, page, projection.behind
    )


def _fit(study: Study, projection: Projection) -> int:
    """Fit what needs no training stage, the logistic regressions that are missing; return how many."""
    directory, every = study.config.directory, study.plan.all_by_key.values()
    fitted = [planned for planned in every if planned.control == "logistic"]
    missing = [planned for planned in fitted if read_result(directory, planned.key) is None]
    for planned in missing:
        found = fit_logistic(planned, study.cells[planned.condition.query], study.plan.folds)
        write_result(directory, *found)
    for result in read_all(directory, [planned.key for planned in missing]).values():
        projection.project(result)
    return len(missing)


def _sweep(
    study: Study,
    missing: Sequence[Stage],
    projection: Projection,
    first: Account,
    show: Show,
    recalls: Recalls,
) -> Account:
    """Train the missing stages; project each trial as it ends; remember what failed; return the last account."""
    directory = study.config.directory

    def finished(stage: Stage) -> None:
        for result in read_all(directory, stage.trials.values()).values():
            projection.project(result)
            note(recalls, result)

    def progress(tree: Tree) -> None:
        try:
            show(replace(_account(tree, first), classes=extremes(recalls)))
        except WritingError as error:
            tree.unwritten = tree.unwritten or str(error)

    tree = train_stages(missing, study.cells, directory, study.config.resources, finished, progress)
    for stage in tree.stages:
        if tree.state[stage.key] != "done":
            finished(stage)  # what was read from it before it ended
        for key in stage.trials.values():
            if stage.key in tree.reasons and read_result(directory, key) is None:
                write_failure(directory, key, tree.reasons[stage.key])
                projection.project_failure(key, tree.reasons[stage.key])
    if tree.unwritten:
        raise WritingError(tree.unwritten)
    return replace(_account(tree, first), classes=extremes(recalls))


def _further(study: Study, recall: Recall, account: Account) -> tuple[Study, tuple[Stage, ...], Account]:
    """Return what is trained after a sweep, with the account to go on from; nothing if it was interrupted.

    A search goes on until its winner is confirmed, and `replicates: auto` until nothing is open.
    """
    if (
        study.search is None and not study.config.space.declared
    ) or account.stages_done + account.stages_failed < account.stages_total:
        return study, (), account
    # What failed has been tried in this run.
    settled = {key for key in study.plan.all_by_key if recall(key) is not None}
    missing = study.plan.missing(settled, kept_states(study.config.directory, study.plan))
    stages, steps = account.stages_total + len(missing), account.steps_total + _steps(missing)
    return study, missing, replace(account, total=len(study.plan.all_by_key), stages_total=stages, steps_total=steps)


def _looked(study: Study) -> Study:
    """Look at a study that goes on until nothing is open, if it is due, and return it as it goes on from there."""
    while (look := take_look(study)) and look.open:
        study = looked_at(study)
    return study


def _both(first: Show, second: Show) -> Show:
    def show(account: Account) -> None:
        first(account)
        second(account)

    return show


def _account(tree: Tree, first: Account) -> Account:
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


def sync_study(config: StudyConfig) -> tuple[int, str]:
    """Rebuild the MLflow experiment of a study from its results.

    Returns
    -------
    How many finished trials there are, and why MLflow does not show all of it (empty if it does).

    Raises
    ------
    InputError
        If the study or MLflow cannot be used.
    """
    with nothing_left_if_refused(config.directory) as wrote:
        study = open_study(config, wrote)
    found = read_all(config.directory, study.plan.all_by_key)
    failures = read_failures(config.directory, [key for key in study.plan.all_by_key if key not in found])
    present = [config.directory / name for name in ("config.yaml", "report.html")]
    with alone(config.directory), Projection(config, study.plan, class_names(study.cells)) as projection:
        for result in found.values():
            projection.project(result)
        for key, reason in failures.items():
            projection.project_failure(key, reason)
        _show_trust(projection, trusted(study, {key: found[key] for key in study.plan.by_key if key in found}))
        projection.attach([path for path in (*present, *_tables(config)) if path.is_file()])
    return len(found), projection.behind


def _show_trust(projection: Projection, trust: Mapping[str, Labels]) -> None:
    agreement = {query: labels.agreement for query, labels in trust.items()}
    projection.project_labels(agreement, {query: labels.trusted_share for query, labels in trust.items()})


def _tables(config: StudyConfig) -> list[Path]:
    return sorted((config.directory / "tables").glob("*.csv"))


def _warn_of_other_versions(found: Mapping[str, Result]) -> None:
    now = versions()
    differ = sorted({name for r in found.values() for name, value in r.made_with.items() if now.get(name) != value})
    if differ:
        log.warning("earlier trials of this study were made with other versions of: %s", ", ".join(differ))
