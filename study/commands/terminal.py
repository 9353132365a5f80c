"""What the terminal shows: tables, progress, and how a run ended."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from numbers import Number
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from study.config import written

if TYPE_CHECKING:  # a terminal only reads what these make; importing them takes seconds
    from pathlib import Path

    import pandas as pd

    from study.commands.pipeline import Outcome
    from study.report import Analysis
    from study.studies import Study
    from study.sweep import Prediction, Status
    from study.verdict import Precision, Verdict

FAILURES = 5  # that are printed


def console(json: bool = False) -> Console:
    """Return the console for people: standard output, or standard error where that is kept for JSON."""
    # A file or a pipe has no width: give tables room.
    return Console(stderr=json, highlight=False, width=None if sys.stdout.isatty() else 140)


def show_table(to: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; names of classes and queries are plain text, never markup."""
    table = Table(title=escape(title), title_justify="left", title_style="bold", header_style="bold")
    for number, column in enumerate(columns):
        numbers = bool(rows) and all(_is_number(row[number]) for row in rows)
        # Names are told whole, on several lines if need be: twins are often called alike.
        table.add_column(escape(column), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    to.print(table)


def _is_number(value: object) -> bool:
    return isinstance(value, Number) and not isinstance(value, bool)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:,.4g}"
    return escape(written(value))


def show_plan(to: Console, study: Study) -> None:
    """Print factors, trials, stages, cost and notes."""
    plan = study.plan
    factors = [(f.name, f.role, ", ".join(map(written, f.levels)) or str(f.domain)) for f in plan.factors]
    show_table(to, f"study {study.config.name}: factors", ["factor", "role", "levels"], factors)
    kinds: dict[str, list[int]] = {}
    for stage in plan.stages:
        kinds.setdefault(stage.kind, []).append(stage.epochs[-1])
    rows = [(kind, len(epochs), sum(epochs)) for kind, epochs in kinds.items()]
    show_table(to, "stages, each trained once and shared", ["stage", "number", "epochs"], rows)
    to.print(
        f"{_size(study)} in {len(plan.stages)} stages.\n"
        f"Epochs: {plan.epochs_separate:,} if each trial trained alone, {plan.epochs_shared:,} shared "
        f"({plan.epochs_separate / plan.epochs_shared:.1f} times fewer; optimiser steps "
        f"{plan.steps_separate / plan.steps_shared:.1f} times)."
    )
    if study.config.budget == "grow":
        to.print(
            "Epochs grow: trained are two levels of scanvi.max_epochs, and more while they matter. This is the most."
        )
    show_notes(to, "note", plan.notes)


def _size(study: Study) -> str:
    plan, space = study.plan, study.config.space
    if study.search is not None:
        return (
            f"At most {len(plan.trials)} trials: {space.candidates} candidates x {space.replicates} replicates in all "
            f"data conditions, then the winner and the default settings in {space.confirm} fresh ones. With made-up "
            "candidates, none of them pruned, that is"
        )
    replicates, beside = plan.replicates, len(plan.all_by_key) - len(plan.by_key)
    return (
        f"{len(plan.trials)} trials = {len(plan.trials) // replicates} design points x {replicates} replicates"
        f"{f', and {beside} trials of controls beside them' if plan.controls else ''},"
    )


def show_precision(to: Console, study: Study, precision: Precision) -> None:
    """Print the half-widths of 95% intervals to expect with more replicates, and what those cost."""
    plan = study.plan
    each = plan.steps_shared / plan.replicates
    counts = sorted({share.replicates for share in precision.shares})
    rows = [["optimiser steps in all", *(f"{each * count:,.0f}" for count in counts)]]
    for group in dict.fromkeys(share.group for share in precision.shares):
        widths = [share.half_width for share in precision.shares if share.group == group]
        rows.append([f"share of {group}", *(f"± {width:.2f}" for width in widths)])
    for factor in dict.fromkeys(effect.factor for effect in precision.effects):
        mine = [effect for effect in precision.effects if effect.factor == factor]
        rows.append([f"effect of {factor}", *(f"± {one.half_width:.1f} points" for one in mine)])
        rows.append(["  called real in 4 of 5 studies from", *(f"{one.detectable:.1f} points" for one in mine)])
    columns = ["95% interval to expect", *(f"{count} replicates" for count in counts)]
    show_table(to, f"how sharp it will be ({precision.source})", columns, rows)
    to.print(precision.statement, markup=False)
    if precision.ends_after is not None:
        from study.verdict import counts_words  # slow to import

        declared = study.config.space.declared
        to.print(
            f"Looks are declared after {counts_words(declared)} replicates. It ends after "
            f"{precision.ends_after:.1f} of them on average, if differences are as said above: "
            f"{each * precision.ends_after:,.0f} optimiser steps, and at most {each * declared[-1]:,.0f}.",
            markup=False,
        )


def show_prediction(to: Console, study: Study, prediction: Prediction | None) -> None:
    """Print how long a run will take and what it costs, or how to find out."""
    if prediction is None:
        to.print("How long: nothing like it has been trained here yet; 'plan --calibrate' trains some steps to tell.")
        return
    gpus, workers = study.config.resources.gpus, prediction.workers
    # Only Ray knows what a cluster has, and planning does not ask it.
    where = "" if study.config.resources.address == "local" else ", as many as this machine would hold"
    left = (
        f"'run' will take about {_duration(prediction.seconds)}" if prediction.seconds else "nothing is left to train"
    )
    shared, separate = (_duration(seconds * (gpus or 1)) for seconds in (prediction.shared, prediction.separate))
    to.print(
        f"How long: {left} on {workers} worker{'s' if workers > 1 else ''}{where}. The whole study: {shared} of "
        f"{'GPU' if gpus else 'worker'} time, {separate} if each trial trained alone (from {prediction.source}).",
        markup=False,
    )


def _duration(seconds: float) -> str:
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def show_notes(to: Console, kind: str, notes: Sequence[str]) -> None:
    """Print sentences that a person should not miss."""
    for note in notes:
        to.print(f"[yellow]{kind}:[/] {escape(note)}")


def show_outcome(to: Console, outcome: Outcome) -> None:
    """Print how a run ended, the verdict, and where to look."""
    total = outcome.already + outcome.trained + len(outcome.failures) + outcome.waiting
    if outcome.already == total:
        to.print(f"All {total} trials were already done.")
    else:
        parts = [f"{outcome.trained} trained now", f"{outcome.already} were already done"]
        parts += [f"[red]{len(outcome.failures)} failed[/]", f"{outcome.waiting} not yet trained"]
        to.print(f"{total} trials: {', '.join(parts)} ({timedelta(seconds=round(outcome.seconds))}).")
    for key, reason in list(outcome.failures.items())[:FAILURES]:
        to.print(f"[red]failed[/] {key[:12]}: {escape(reason)}")
    if (more := len(outcome.failures) - FAILURES) > 0:
        to.print(f"[red]failed[/] {more} more: the report has all, with their settings")
    show_analysis(to, outcome.analysis, outcome.page)
    if outcome.behind:
        to.print(f"[yellow]MLflow is behind[/] ({escape(outcome.behind)}): it does not show all of this yet.")
        to.print("        The results are whole; scanvi-study sync, with the same overrides, brings it up.")
    to.print("Runs:   scanvi-study ui     (MLflow, on this machine only)")
    if outcome.complete:
        to.print("Next:   scanvi-study export, with the same overrides; then transfer, with what it writes")
    else:
        to.print("Next:   the same command again goes on from here")


def show_status(to: Console, status: Status) -> None:
    """Print how far a run is."""
    for line in status.lines():
        to.print(line, markup=False)


def show_analysis(to: Console, analysis: Analysis, page: Path) -> None:
    """Print the verdict of each outcome, a line per class and one for the study, and where the report is."""
    for one in analysis.verdicts:
        left = _nothing_told(one)
        rows = [
            (
                found.class_name,
                found.dominant or ("cannot tell" if found.decomposed else "few cells"),
                found.which if found.real else "none is certain",
            )
            for found in one.classes
            if found.which
        ]
        columns = ["class", "runs differ by", "effects that are real"]
        if rows:
            show_table(to, one.outcome, columns, rows)
        for reason, names in left.items():
            to.print(f"{', '.join(names)}: {reason}", markup=False)
        to.print(f"{one.sentence}\n", markup=False)
    if not analysis.verdicts and analysis.search is None:
        to.print("Nothing can be said yet: too few replicates are whole, or fewer than the first look needs.\n")
    for sentence in (*analysis.looked, *analysis.fallen):
        to.print(f"{sentence}\n", markup=False)
    if not analysis.trust and analysis.search is None:
        to.print("Which labels to trust is told from two replicates on that have all cells of a query.\n")
    for query, labels in analysis.trust.items():
        to.print(f"{query}: {labels.sentence}\n", markup=False)
    for sentence in analysis.compared:
        to.print(f"{sentence}\n", markup=False)
    if analysis.controls:
        rows = [(control.control, control.outcome, control.found) for control in analysis.controls]
        show_table(to, "controls", ["control", "outcome", "found"], rows)
    if analysis.search is not None:
        show_frames(to, list(analysis.search.frames().items()))
        to.print(f"{analysis.search.sentence}\n", markup=False)
    to.print(f"Report: {page}", markup=False, soft_wrap=True)


def _nothing_told(verdict: Verdict) -> dict[str, list[str]]:
    """Names of the classes with neither shares nor effects, by the reason."""
    reasons: dict[str, list[str]] = {}
    for found in verdict.classes:
        if not found.which:
            reasons.setdefault(found.why, []).append(found.class_name)
    return reasons


def show_frames(to: Console, tables: Sequence[tuple[str, pd.DataFrame]]) -> None:
    """Print several tables."""
    for title, frame in tables:
        show_table(to, title, list(map(str, frame.columns)), list(frame.itertuples(index=False)))


def print_json(wanted: bool, values: Mapping[str, object]) -> None:
    """Print one JSON object on standard output, if it is wanted there."""
    if wanted:
        print(json.dumps(values, default=str))
