"""Finished runs, looked at without training: saved models, a table of runs, or an MLflow experiment."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from study import files
from study.commands.terminal import show_frames, show_table
from study.config import DataConfig, compose
from study.diagnosis import Diagnosis, diagnose_models, diagnose_table, is_outcome, matches
from study.errors import InputError, few, nearest
from study.report import render_diagnosis
from study.tracking import runs_of

MLFLOW = "mlflow:"
TABLES = (".csv", ".tsv")
MOST_COLUMNS = 6  # of runs, that a terminal has room for


@dataclass(frozen=True)
class Asked:
    """What a diagnosis is asked about.

    Attributes
    ----------
    targets
        Folders of models, one table, or one experiment.
    words
        Overrides.
    outcomes
        Columns of a table that were measured, beside those whose names say so.
    """

    targets: tuple[str, ...]
    words: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()

    @classmethod
    def of(cls, words: Sequence[str], outcomes: Sequence[str] = ()) -> Asked:
        """Tell targets from overrides: an override has a '=' and is no path."""
        overrides = tuple(word for word in words if "=" in word and not Path(word).exists())
        return cls(tuple(word for word in words if word not in overrides), overrides, tuple(outcomes))


def make_diagnosis(asked: Asked, trust_pickle: bool = False, predict: bool = False) -> Diagnosis:
    """Diagnose runs.

    Raises
    ------
    InputError
        If there is nothing to look at, or something cannot be read.
    """
    if not asked.targets:
        raise InputError(
            "nothing to look at. Name the folders of saved models, a table of runs (runs.csv), or an MLflow "
            "experiment (mlflow:NAME)."
        )
    first = asked.targets[0]
    if first.startswith(MLFLOW) or Path(first).suffix in TABLES:
        if len(asked.targets) > 1:
            raise InputError(f"{few(asked.targets)}: a table of runs is looked at alone. Put all runs into one.")
        return diagnose_table(_measured(first, asked), asked.outcomes)
    words = [word for word in asked.words if word.startswith("data")]
    if asked.words and not any(word.startswith("data=") for word in words):
        # Only where the files are: which cells are the reference is as the models were told.
        paths = _files(compose(["data=forum", *asked.words]).data) if words else _files(compose(asked.words).data)
        return diagnose_models([Path(one) for one in asked.targets], paths, None, (), trust_pickle, predict)
    data = compose(asked.words).data if words else None
    return diagnose_models([Path(one) for one in asked.targets], _files(data), data, words, trust_pickle, predict)


def write_page(diagnosis: Diagnosis, path: Path) -> Path:
    """Write the page of a diagnosis."""
    files.write(path, render_diagnosis(diagnosis).encode())
    return path


def _files(data: DataConfig | None) -> list[Path]:
    if data is None:
        return []
    if data.source != "combined" or data.path is None:
        raise InputError(
            f"data={data.name}: a saved model was trained on one object with reference and query. Name its h5ad, or "
            "those of all runs, as in data=forum 'data.path=[t1/tau.h5ad,t2/tau.h5ad]'."
        )
    if isinstance(data.path, Path):
        return [data.path]
    return list(data.path.values()) if isinstance(data.path, dict) else list(data.path)


def _measured(where: str, asked: Asked) -> pd.DataFrame:
    """Read a table of runs or an experiment; of an experiment's metrics, what is recall and the like, or asked for."""
    if not where.startswith(MLFLOW):
        return _with_outcomes(_table(Path(where)), asked.outcomes, where)
    params, metrics = runs_of(compose(asked.words).tracking, where.removeprefix(MLFLOW))
    wanted = [name for name in metrics if is_outcome(str(name)) or name in asked.outcomes]
    return _with_outcomes(pd.concat([params, metrics[wanted]], axis=1), asked.outcomes, where)


def _table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: no such file. Expected a table of runs, one row per run.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row with more fields than the header
            table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", index_col=False)
    except (ValueError, OSError, UnicodeError, pd.errors.ParserWarning) as error:
        raise InputError(f"{path}: cannot be read as a table ({str(error).splitlines()[0]}).") from None
    if table.empty or len(table.columns) < 2:
        raise InputError(f"{path}: has {len(table)} rows and {len(table.columns)} columns. Expected a row per run.")
    return table


def _with_outcomes(table: pd.DataFrame, outcomes: Sequence[str], where: str) -> pd.DataFrame:
    """Return a table in which something was measured; raise `InputError` for one without, or for a missing column."""
    for name in outcomes:
        if name not in table:
            raise InputError(
                f"--outcome {name}: {where} has no such column.{nearest(name, list(map(str, table)))} "
                f"It has: {few(list(map(str, table)))}."
            )
    if not any(is_outcome(str(name)) or name in outcomes for name in table):
        raise InputError(
            f"{where}: nothing in it looks measured. Expected columns such as 'recall/B cell' or 'accuracy'; name "
            f"others with --outcome. It has: {few(list(map(str, table)))}."
        )
    return table


def figures(diagnosis: Diagnosis, reported: Sequence[str]) -> list[str]:
    """Say which recomputed numbers some reported figures are; nothing if there are none.

    Raises
    ------
    InputError
        If a figure is none, or of no class.
    """
    if not reported:
        return []
    classes = list(dict.fromkeys(map(str, diagnosis.numbers["class"]))) if len(diagnosis.numbers) else []
    found = {}
    for word in reported:
        name, _, figure = word.rpartition("=")
        try:
            value = float(figure.removesuffix("%"))
        except ValueError:
            raise InputError(f"--reported {word!r}: expected a class and a figure, as in 'B cell=0.98'.") from None
        if name not in classes:
            raise InputError(
                f"--reported {word!r}: no class is called so.{nearest(name, classes)} There are: {few(classes)}."
            )
        found[name] = value / 100 if figure.endswith("%") or value > 1 else value
    return matches(diagnosis.numbers, found)


def show_diagnosis(to: Console, diagnosis: Diagnosis, page: Path, said: Sequence[str] = ()) -> None:
    """Print what was found of each run, and what all of them say together."""
    for run in dict.fromkeys(one.run for one in diagnosis.findings):
        rows = [(one.level, one.kind, one.found, one.sure) for one in diagnosis.findings if one.run == run]
        show_table(to, run, ["", "what", "found", "how sure"], rows)
    numbers = diagnosis.numbers
    if len(numbers):
        frame = numbers.loc[numbers["cells"] > 0, ["run", "part", "class", "cells", "recall", "precision"]].round(1)
        frame = frame.rename(columns={"part": "measured on", "recall": "recall %", "precision": "precision %"})
        show_frames(to, [("recomputed", frame)])
    if len(diagnosis.differences) and len(diagnosis.table) <= MOST_COLUMNS:
        show_frames(to, [("what differs", diagnosis.differences)])
    for sentence in said:
        to.print(f"{sentence}\n", markup=False)
    for sentence in diagnosis.together.sentences if diagnosis.together else ():
        to.print(f"{sentence}\n", markup=False)
    if diagnosis.together and diagnosis.together.aside:
        to.print(f"Set aside, as names of runs or not measured of all: {', '.join(diagnosis.together.aside)}.\n")
    if diagnosis.next:
        to.print(
            f"The smallest study that would tell: {diagnosis.next.trainings} trainings. {diagnosis.next.precision}\n"
            "Save as search_spaces/diagnosed.yaml (scanvi-study init makes a folder with one):\n"
            f"{diagnosis.next.space}\nThen: {diagnosis.next.command}",
            markup=False,
            soft_wrap=True,
        )
    to.print(f"Page: {page}", markup=False, soft_wrap=True)
