"""A study from configuration to verdict: train what is missing, analyse what is there, show it in MLflow.

Running is resuming: a trial with a result is done, and only what is missing is trained.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from study import files
from study.cells import class_names
from study.commands.refusal import nothing_left_if_refused
from study.commands.rounds import Rounds, Show, goes_on, looked, missing_of
from study.config import StudyConfig, Tracking
from study.imports import uncollected
from study.plan import Stage
from study.studies import open_study, taken_looks
from study.sweep import alone, cluster
from study.trials import Result, read_all, read_failures
from study.versions import versions

if TYPE_CHECKING:  # imported while Ray starts
    from study.report import Analysis
    from study.tracking import Projection
    from study.trust import Labels

log = logging.getLogger(__name__)
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
        if study.search is None:  # a record that cannot be read is refused now, not after hours
            taken_looks(study.config, study.plan.factors)
        study = looked(study)  # an earlier run may have ended before its look
        for name in ("trials", "stages"):
            files.tidy(config.directory / name)
        # Another command may prepare the cells of this study just now, without its lock.
        files.tidy(config.directory / "counts", untouched=ABANDONED)
        before = read_all(config.directory, study.plan.all_by_key)
        missing = missing_of(study, before.keys())
        _warn_of_other_versions(before)
        with Rounds(study, before, missing, show) as rounds, ExitStack() as workers:
            if missing:
                # What does not fit the cluster is refused before MLflow hears of it.
                with _meanwhile(partial(_import_more, config.tracking)):
                    workers.enter_context(cluster(config.resources))
                _train(rounds, missing, partial(rounds.begin, command))
            else:
                rounds.begin(command)
            from study.report import analyse, read_finished, write_report

            with _meanwhile(workers.close):  # Ray takes more than a second to end
                analysis = analyse(rounds.study, read_finished(rounds.study))
                page = write_report(rounds.study, analysis, command)
            done = _show(rounds, analysis, page)
    waiting = len(rounds.study.plan.all_by_key) - done - len(analysis.failures)
    seconds = time.perf_counter() - start
    behind = rounds.projection.behind
    return Outcome(len(before), done - len(before), analysis.failures, waiting, seconds, analysis, page, behind)


@contextmanager
def _meanwhile(what: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread; it is done on leaving."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(what)
        yield
    future.result()


def _import_more(tracking: Tracking) -> None:
    """Import what is needed once Ray runs: it takes seconds to start, and hardly needs this process for it."""
    with uncollected():
        from study.report import analyse  # noqa: F401
        from study.sweep import train_stages  # noqa: F401
        from study.tracking import import_store

        import_store(tracking)


def _train(rounds: Rounds, missing: Sequence[Stage], begin: Callable[[], None]) -> None:
    """Train what is missing; of a search, or until nothing is open, also what that calls for."""
    from study.sweep import train_stages

    study = rounds.study
    further = rounds.further if goes_on(study) else None
    directory, resources = study.config.directory, study.config.resources
    rounds.further(
        train_stages(missing, study.cells, directory, resources, rounds.finished, rounds.progress, begin, further)
    )


def _show(rounds: Rounds, analysis: Analysis, page: Path) -> int:
    """Show in MLflow what a run found, and tell how it ended; return how many trials are done."""
    projection, config = rounds.projection, rounds.study.config
    _show_trust(projection, analysis.trust)
    projection.mark_collapsed(dict.fromkeys(analysis.collapses["trial_key"]) if len(analysis.collapses) else ())
    projection.attach([config.directory / "config.yaml", page, *_tables(config)])
    done, total = len(analysis.results) + len(analysis.beside), len(rounds.study.plan.all_by_key)
    rounds.tell(replace(rounds.account, done=done, failed=len(analysis.failures), total=total, stages_running=0))
    return done


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
    from study.studies import trusted
    from study.tracking import Projection

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
