"""What a run trains, as its driver sees it: what each stage gave is shown, and it goes on, round after round."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import yaml

from study import files
from study.cells import class_names
from study.commands.recalls import Recalls, extremes, note
from study.config import dump
from study.errors import WritingError
from study.plan import Stage
from study.studies import Study
from study.sweep import Account, Tree, kept_account
from study.trials import (
    Result,
    halted_epochs,
    kept_states,
    read_all,
    read_result,
    write_failure,
    write_result,
)

if TYPE_CHECKING:  # imported while Ray starts
    from study.tracking import Projection

Show = Callable[[Account], None]


class Rounds:
    """A run from where MLflow is opened to its end.

    Attributes
    ----------
    study
        With the plan of what is trained now.
    account
        How far the run was when the tree that is trained now was begun, or how it ended.
    projection
        What shows trials in MLflow, from `begin` on.
    """

    projection: Projection

    def __init__(self, study: Study, before: Mapping[str, Result], missing: Sequence[Stage], show: Show) -> None:
        """Take what is finished, and the stages that are missing; `show` is called whenever something changed."""
        self.study, self.before, self.show = study, before, show
        keys = study.plan.all_by_key
        self.account = Account(len(before), 0, len(keys), stages_total=len(missing), steps_total=_steps(missing))
        self._recalls = Recalls()
        self._ended: Tree | None = None
        self._held = ExitStack()
        if goes_on(study):
            from study.studies import following, recall_reader  # slow to import

            self._recall = recall_reader(study.config.directory)
            self._follow = following(study, self._recall)

    def __enter__(self) -> Rounds:
        """Do nothing: `begin` does, while workers start."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the study's run in MLflow, and the account in its folder."""
        self._held.__exit__(*error)  # type: ignore[arg-type]

    def begin(self, command: str) -> None:
        """Open MLflow, say that the study is run by this command, and do what needs no worker.

        Raises
        ------
        InputError
            If MLflow cannot be used.
        WritingError
            If something cannot be written.
        """
        from study.tracking import Projection

        config = self.study.config
        self.projection = Projection(config, self.study.plan, class_names(self.study.cells))
        self._held.enter_context(self.projection)
        self.tell = self._held.enter_context(kept_account(config.directory, command, self.account))
        files.write(config.directory / "config.yaml", yaml.safe_dump(dump(config), sort_keys=False).encode())
        self._fit()
        self._take(self.before)

    def _fit(self) -> None:
        """Fit what needs no training stage, the logistic regressions that are missing."""
        plan, directory = self.study.plan, self.study.config.directory
        fitted = [planned for planned in plan.all_by_key.values() if planned.control == "logistic"]
        missing = [planned for planned in fitted if read_result(directory, planned.key) is None]
        if not missing:
            return
        from study.trials import fit_logistic

        for planned in missing:
            write_result(directory, *fit_logistic(planned, self.study.cells[planned.condition.query], plan.folds))
        for result in read_all(directory, [planned.key for planned in missing]).values():
            self.projection.project(result)
        self.account = replace(self.account, done=self.account.done + len(missing))

    def _take(self, results: Mapping[str, Result]) -> None:
        """Show trials that are finished."""
        for result in results.values():
            self.projection.project(result)
            note(self._recalls, result)

    def finished(self, stage: Stage) -> None:
        """Show what was read from a stage."""
        self._take(read_all(self.study.config.directory, stage.trials.values()))

    def progress(self, tree: Tree) -> None:
        """Tell how far a tree is."""
        account = self._account(tree)
        try:
            self.tell(account)
            self.show(account)
        except WritingError as error:
            tree.unwritten = tree.unwritten or str(error)

    def further(self, tree: Tree) -> Sequence[Stage]:
        """Remember what failed of a tree that has ended; return what is trained next, nothing if interrupted.

        A search goes on until its winner is confirmed, a design that decides itself how far it goes until it has.

        Nothing is done for the same tree again.

        Raises
        ------
        WritingError
            If that is what ended the tree.
        """
        if tree is self._ended:
            return ()
        self._ended = tree
        directory = self.study.config.directory
        for stage in tree.stages:
            if tree.state[stage.key] != "done":
                self.finished(stage)  # what was read from it before it ended
            for key in stage.trials.values():
                if stage.key in tree.reasons and read_result(directory, key) is None:
                    write_failure(directory, key, tree.reasons[stage.key])
                    self.projection.project_failure(key, tree.reasons[stage.key])
        if tree.unwritten:
            raise WritingError(tree.unwritten)
        self.account = self._account(tree)
        return self._next()

    def _next(self) -> Sequence[Stage]:
        if not goes_on(self.study):
            return ()
        self.study = looked(self._follow())
        if self.account.stages_done + self.account.stages_failed < self.account.stages_total:
            return ()
        # What failed has been tried in this run.
        settled = {key for key in self.study.plan.all_by_key if self._recall(key) is not None}
        missing = missing_of(self.study, settled)
        self.account = replace(
            self.account,
            total=len(self.study.plan.all_by_key),
            stages_total=self.account.stages_total + len(missing),
            steps_total=self.account.steps_total + _steps(missing),
        )
        if missing:
            self.projection.extend(self.study.plan)
            self._fit()
        return missing

    def _account(self, tree: Tree) -> Account:
        """How far a tree is, from the account that it began with."""
        done = [stage for stage in tree.stages if tree.state[stage.key] == "done"]
        failed = [stage for stage in tree.stages if tree.state[stage.key] in ("failed", "blocked")]
        first = self.account
        return replace(
            first,
            done=first.done + sum(len(stage.trials) for stage in done),
            failed=first.failed + sum(len(stage.trials) for stage in failed),
            stages_done=first.stages_done + len(done),
            stages_running=tree.count("running"),
            stages_failed=first.stages_failed + len(failed),
            steps_done=first.steps_done + _steps(done),
            classes=extremes(self._recalls),
        )


def goes_on(study: Study) -> bool:
    """Whether what a study trains depends on what it has found."""
    return study.search is not None or bool(study.config.space.declared) or study.config.budget == "grow"


def looked(study: Study) -> Study:
    """Judge a study that decides itself how far it goes, if it is due, and return it as it goes on from there."""
    if study.search is not None or not goes_on(study):
        return study
    from study.report import calls_for_more
    from study.studies import looked_at

    while calls_for_more(study):
        study = looked_at(study)
    return study


def missing_of(study: Study, done: Collection[str]) -> tuple[Stage, ...]:
    """Return the stages still to train, from what is kept on disk."""
    directory, plan = study.config.directory, study.plan
    return plan.missing(done, kept_states(directory, plan), halted_epochs(directory, plan))


def _steps(stages: Sequence[Stage]) -> int:
    return sum(stage.length for stage in stages)
