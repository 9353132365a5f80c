"""A study in Python, for notebooks: run it, or read what is finished of it, as tables, pictures and a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

import pandas as pd
from matplotlib.axes import Axes
from rich.console import Console

from study.commands.explained import Best, Explanation, html_of, of_outcome, refuse_unknown, sentences_of
from study.commands.pipeline import run_study
from study.commands.progress import progress
from study.commands.refusal import nothing_left_if_refused
from study.commands.terminal import show_notes
from study.config import Outcome, StudyConfig, compose, load_stored
from study.errors import InputError
from study.report import (
    Attributed,
    Finished,
    explain,
    plot_confusion,
    plot_effects,
    plot_query_size,
    plot_recall,
    plot_shares,
    plot_trust,
    read_finished,
    whole_results,
)
from study.studies import NOT_EXPLAINED, Study, agreed_labels, choice_of, in_files, open_study
from study.trials import MACRO, cell_frame, confusion_frame, read_predictions, recall_frame, trial_frame
from study.trust import UNKNOWN
from study.verdict import Verdict, outcome_label

HELDOUT: Outcome = "heldout/recall"


@dataclass(frozen=True, eq=False)
class StudyResults:
    """What was finished of a study when it was read.

    Attributes
    ----------
    study
        Its configuration, cells and plan.
    finished
        Results and failures by trial key.
    """

    study: Study
    finished: Finished

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.study.config.name

    @property
    def config(self) -> StudyConfig:
        """Configuration of the study."""
        return self.study.config

    @property
    def report(self) -> Path:
        """The HTML page that the last run wrote."""
        return self.config.directory / "report.html"

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per finished trial: factors, replicate, seed, fold, key, probes and all metrics."""
        return trial_frame(self.study.plan, self.finished.results)

    @cached_property
    def recalls(self) -> pd.DataFrame:
        """One row per finished trial, part (heldout, train, query) and class: recall, precision, f1, support."""
        return recall_frame(self.study.plan, self.finished.results)

    @property
    def shares(self) -> pd.DataFrame:
        """Shares of the differences between runs, of each outcome, class and group, with 95% intervals."""
        return self._frames["shares"]

    @property
    def effects(self) -> pd.DataFrame:
        """Effects in percentage points, of each outcome and class, with 95% intervals and corrected p values."""
        return self._frames["effects"]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """A verdict for each outcome of the study; none while no replicate is whole."""
        return self._attributed.verdicts if self._attributed else ()

    def attribute(self, outcome: Outcome = HELDOUT) -> Explanation:
        """Say what explains the differences in one outcome, over the replicates that are whole.

        Parameters
        ----------
        outcome
            Cells and per-class metric, such as ``heldout/recall`` or ``train/precision``; also one that the study's
            configuration does not name.

        Raises
        ------
        InputError
            If it was not measured, or no replicate is whole.
        """
        measured = [one for one in get_args(Outcome) if one.split("/")[0] in self._parts_of_all]
        refuse_unknown("outcome", outcome, measured)
        own = outcome in self.config.outcomes
        found = self._whole(self._attributed if own else explain(self.study, self.finished, [outcome]))
        (verdict,) = (one for one in found.verdicts if one.outcome == outcome)
        frames = {name: of_outcome(frame, outcome) for name, frame in found.attribution.to_frames().items()}
        return Explanation(
            outcome, verdict, *(frames[name] for name in ("tables", "shares", "chance", "means", "effects"))
        )

    def best(self) -> Best:
        """Choose the settings whose worst condition is best, over the replicates that are whole.

        Raises
        ------
        InputError
            If no replicate is whole, or settings were not tried in the same data conditions.
        """
        choice = choice_of(self.study, whole_results(self.study))
        return Best(dict(choice.levels), choice.reason, choice.table)

    def predictions(self, trial: str) -> pd.DataFrame:
        """Return what one trial called every cell.

        Parameters
        ----------
        trial
            Its key, as in `trials.trial_key`.

        Returns
        -------
        One row per cell, by name: `part`, `batch`, `label`, `predicted`, `confidence`; see `study.trials.cell_frame`.

        Raises
        ------
        InputError
            If the trial is not finished.
        """
        done = {**self.finished.results, **self.finished.beside}
        refuse_unknown("trial", trial, done)
        condition = self.study.plan.all_by_key[trial].condition
        cells = condition.take(self.study.cells[condition.query])
        return cell_frame(done[trial], read_predictions(self.config.directory, trial), cells)

    def labels(self, query: str, unknown: float = UNKNOWN) -> pd.DataFrame:
        """Return what all finished trainings say of each cell of a query together, by name; see `study.trust.Labels`.

        With its `dataset` and `row` in the file, in the order of that; as the study keeps them where the data are gone.
        """
        return in_files(self.study, query, agreed_labels(self.study, self.finished.results, query, unknown))

    def confusion(self, part: str = "heldout", trials: Iterable[str] | None = None) -> pd.DataFrame:
        """Return cells by true (rows) and called class (columns), summed over trials.

        Parameters
        ----------
        part
            ``heldout``, ``train`` or ``query`` (where truth is known).
        trials
            Keys of the trials to sum; all finished ones of the table that have such a part if absent.

        Raises
        ------
        InputError
            If a trial is not finished, or has no such part.
        """
        refuse_unknown("part", part, self._parts)
        having = [key for key, one in self.finished.results.items() if part in one.confusion]
        if isinstance(trials, str):
            raise InputError(f"trials: expected a list of keys, as in [{trials!r}].")
        keys = having if trials is None else list(trials)
        for key in keys:
            refuse_unknown(f"trial with {part} cells", key, having)
        if not keys:
            raise InputError("trials: no trial is named. Give at least one key, as in 'trials.trial_key'.")
        return confusion_frame((self.finished.results[key] for key in keys), part)

    def plot_shares(self, outcome: Outcome = HELDOUT, ax: Axes | None = None) -> Axes:
        """Draw how much of the differences between runs each group explains, class by class, with intervals."""
        found = self.attribute(outcome)
        return plot_shares(found.shares, found.tables, ax)

    def plot_recall(self, part: str = "heldout", by: str | None = None, ax: Axes | None = None) -> Axes:
        """Draw the recall of every class in every trial and its mean, apart by the levels of a factor."""
        refuse_unknown("part", part, self._parts)
        return plot_recall(self.recalls, part, self._factor(by), ax)

    def plot_effects(self, outcome: Outcome = HELDOUT, class_name: str = MACRO, ax: Axes | None = None) -> Axes:
        """Draw what each level does instead of its baseline, for one class or, without a name, their mean."""
        found = self.attribute(outcome)
        refuse_unknown("class_name", class_name, found.tables["class_name"])
        return plot_effects(found.effects, outcome, class_name, ax)

    def plot_confusion(
        self, part: str = "heldout", trials: Iterable[str] | None = None, ax: Axes | None = None
    ) -> Axes:
        """Draw `confusion` in percent of the true class."""
        return plot_confusion(self.confusion(part, trials), part, ax)

    def plot_query_size(
        self, metric: str = "heldout/macro_recall", by: str | None = None, ax: Axes | None = None
    ) -> Axes:
        """Draw a metric of `trials` against the number of query cells, a line for each level of a factor."""
        refuse_unknown("metric", metric, [name for name in self.trials if "/" in str(name)])
        return plot_query_size(self.trials, metric, self._factor(by), ax)

    def plot_trust(self, query: str, ax: Axes | None = None) -> Axes:
        """Draw how many cells of a query get each label, and how far these are to be trusted; see `labels`."""
        return plot_trust(agreed_labels(self.study, self.finished.results, query).by_label, ax)

    def __repr__(self) -> str:
        lines = [f"study {self.name}: {self._progress}"]
        for one in self.verdicts:
            lines += [f"{one.outcome}:", *(f"  {text}" for text in sentences_of(one))]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = [html_of(f"Study {self.name}", [self._progress])]
        parts += [html_of(outcome_label(one.outcome)[0], sentences_of(one), "h5") for one in self.verdicts]
        return "".join(parts)

    @property
    def _progress(self) -> str:
        plan, search = self.study.plan, self.study.search
        failed = len(self.finished.failures_of(plan))
        text = f"{len(self.finished.results)} of {len(plan.trials)} trials finished"
        text += f", {failed} failed" if failed else ""
        if search is not None:
            return f"{text}. {search.sentence}"
        text += f", {len(plan.trials) // plan.replicates} design points x {plan.replicates} replicates."
        return text if self.verdicts else f"{text} No replicate is whole yet, so nothing is explained."

    @cached_property
    def _attributed(self) -> Attributed | None:
        searched = self.study.search is not None
        return None if searched else explain(self.study, self.finished, self.config.outcomes)

    @cached_property
    def _frames(self) -> dict[str, pd.DataFrame]:
        return self._whole(self._attributed).attribution.to_frames()

    @property
    def _parts(self) -> list[str]:
        """What was measured: heldout, train, and query where truth is known."""
        return list(dict.fromkeys(part for result in self.finished.results.values() for part in result.confusion))

    @property
    def _parts_of_all(self) -> list[str]:
        """What was measured in every trial: outcomes of other parts would compare some trials with none."""
        return [part for part in self._parts if all(part in one.confusion for one in self.finished.results.values())]

    def _whole(self, found: Attributed | None) -> Attributed:
        if found is None and self.study.search is not None:
            raise InputError(NOT_EXPLAINED)
        if found is None:
            raise InputError(f"study {self.name!r}: {self._progress} study.run trains what is missing.")
        return found

    def _factor(self, by: str | None) -> str | None:
        if by is not None:
            refuse_unknown("by", by, [factor.name for factor in self.study.plan.factors if factor.levels])
        return by


def load_results(name: str, root: str | Path = "studies") -> StudyResults:
    """Read what is finished of a study from its folder; see `study.load`."""
    if not isinstance(name, str) or not isinstance(root, str | Path):
        raise InputError(f"study.load: expected the name of a study and a folder, found {name!r} and {root!r}.")
    config = load_stored(name, Path(root))
    with nothing_left_if_refused(config.directory) as wrote:
        study = open_study(config, wrote)
    return StudyResults(study, read_finished(study))


def run_results(config: StudyConfig | Sequence[str] = ()) -> StudyResults:
    """Train what is missing of a study and read it; see `study.run`."""
    chosen = config if isinstance(config, StudyConfig) else compose(config)
    command = "" if isinstance(config, StudyConfig) else f"study.run({list(config)!r})"
    # A kernel says that it is a terminal, but what is drawn over there is kept here: plain lines.
    to = Console(force_terminal=False, force_jupyter=False, highlight=False, width=140)
    with progress(to) as show:
        outcome = run_study(chosen, show, command)
    if outcome.behind:
        show_notes(to, "MLflow is behind", [f"{outcome.behind}. 'scanvi-study sync' brings it up."])
    for reason in dict.fromkeys(outcome.failures.values()):
        show_notes(to, "failed", [reason])
    return load_results(chosen.name, chosen.root)
