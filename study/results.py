"""What trials gave, on disk, safely; and all of them as one tidy table.

    <study>/trials/<key>.json   a result: settings, metrics, confusion matrices, curves, probes
    <study>/trials/<key>.npz    its predictions
    <study>/trials/<key>.failed a trial that failed, with the reason; gone when it succeeds
    <study>/stages/<key>/<epoch>.pt   weights that other stages start from

A result file that exists is a trial that is done: it is written last, and it knows the checksum of its predictions.
"""

from __future__ import annotations

import io
import json
import logging
import math
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from study import files
from study.evaluate import MACRO, OVERALL
from study.plan import Plan

if TYPE_CHECKING:
    from study.train import State

log = logging.getLogger(__name__)
PACKAGES = ("scvi-tools", "torch", "lightning", "anndata", "numpy", "scipy", "ray", "optuna", "mlflow", "scanvi-study")
MEASURES = ("recall", "precision", "f1", "support")  # of a class


@cache
def versions() -> dict[str, str]:
    """Return package versions and the git revision that results are made with."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    # A container has no git.
    git = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("git") else None
    revision = git.stdout.strip() if git and git.returncode == 0 else "none"
    return {**{name: version(name) for name in PACKAGES}, "git": revision}


@dataclass(frozen=True)
class Result:
    """One finished trial; everything in it follows from its key, but `seconds`, `finished` and `made_with`."""

    key: str
    settings: dict[str, Any]
    query: str
    query_cells: int
    seed: int
    fold: int
    folds: int
    digest: str
    epochs: dict[str, int]
    classes: list[str]
    truth_classes: list[str]
    metrics: dict[str, float]
    confusion: dict[str, list[list[int]]]
    curves: dict[str, list[float]]
    probes: dict[str, Any]
    left_out: list[int]
    seconds: float
    predictions: str = ""
    finished: float = field(default_factory=time.time)
    made_with: dict[str, str] = field(default_factory=versions)


@dataclass(frozen=True)
class Predictions:
    """Predictions of one trial, for any metric that is thought of later.

    Attributes
    ----------
    probabilities
        Of the reference cells, shape (n_reference, n_classes).
    query_label, query_confidence
        Class code and largest probability of the query cells, shape (n_query,).
    held_out
        Rows of the held-out reference cells.
    """

    probabilities: npt.NDArray[np.float32]
    query_label: npt.NDArray[np.uint16]
    query_confidence: npt.NDArray[np.float32]
    held_out: npt.NDArray[np.int64]


def write_result(directory: Path, result: Result, predictions: Predictions) -> None:
    """Write a trial's predictions, then its result; only the second makes it done."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vars(predictions))
    checksum = files.write(directory / "trials" / f"{result.key}.npz", buffer.getvalue())
    values = {**asdict(result), "predictions": checksum}
    text = json.dumps(values, sort_keys=True)
    body = json.dumps({"sha256": files.sha256(text.encode()), "result": values}, sort_keys=True)
    files.write(directory / "trials" / f"{result.key}.json", body.encode())
    (directory / "trials" / f"{result.key}.failed").unlink(missing_ok=True)


def read_result(directory: Path, key: str) -> Result | None:
    """Read a result and check it; None, with a warning, if it is broken (the trial then counts as missing)."""
    path = directory / "trials" / f"{key}.json"
    try:
        body = json.loads(path.read_bytes())
        intact = body["sha256"] == files.sha256(json.dumps(body["result"], sort_keys=True).encode())
        result = Result(**body["result"]) if intact else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        result = None
    if result is None or result.key != key or not _predictions_intact(directory, result):
        log.warning("%s is damaged: the trial will be trained again", path)
        return None
    return result


def _predictions_intact(directory: Path, result: Result) -> bool:
    try:
        return files.sha256_of(directory / "trials" / f"{result.key}.npz") == result.predictions
    except FileNotFoundError:
        return False


def read_predictions(directory: Path, key: str) -> Predictions:
    """Read the predictions of a finished trial."""
    with np.load(directory / "trials" / f"{key}.npz", allow_pickle=False) as arrays:
        return Predictions(**{name: arrays[name] for name in Predictions.__dataclass_fields__})


def read_all(directory: Path, keys: Iterable[str]) -> dict[str, Result]:
    """Read the results of those trials that are done, by key."""
    found = ((key, read_result(directory, key)) for key in keys)
    return {key: result for key, result in found if result is not None}


def write_failure(directory: Path, key: str, reason: str) -> None:
    """Remember why a trial failed; the next run tries it again."""
    files.write(directory / "trials" / f"{key}.failed", reason.encode())


def read_failures(directory: Path, keys: Iterable[str]) -> dict[str, str]:
    """Return the reasons of failed trials by key."""
    paths = {key: directory / "trials" / f"{key}.failed" for key in keys}
    return {key: path.read_text(errors="replace") for key, path in paths.items() if path.is_file()}


def write_state(directory: Path, stage: str, epoch: int, state: State) -> None:
    """Write the weights of a stage at an epoch, with their checksum beside them (written last)."""
    import torch  # slow to import, and only stages need it

    buffer = io.BytesIO()
    torch.save(state, buffer)
    path = _state_path(directory, stage, epoch)
    checksum = files.write(path, buffer.getvalue())
    files.write(path.with_suffix(".sha256"), checksum.encode())


def read_state(directory: Path, stage: str, epoch: int) -> State:
    """Read weights.

    Raises
    ------
    ValueError
        If they do not match their checksum; they are removed, so that the next run trains them again.
    """
    import torch

    path = _state_path(directory, stage, epoch)
    content = path.read_bytes()
    if files.sha256(content).encode() != path.with_suffix(".sha256").read_bytes():
        path.with_suffix(".sha256").unlink()
        raise ValueError(f"{path} is damaged; it has been discarded, run again to train it anew")
    state: State = torch.load(io.BytesIO(content), weights_only=True)
    return state


def kept_states(directory: Path, plan: Plan) -> set[tuple[str, int]]:
    """Return which weights of a plan are on disk and whole, as (stage key, epoch); damaged ones are said."""
    every = ((stage.key, epoch) for stage in plan.stages for epoch in stage.keep)
    return {(key, epoch) for key, epoch in every if _state_intact(_state_path(directory, key, epoch))}


def _state_intact(path: Path) -> bool:
    if not path.with_suffix(".sha256").is_file():
        return False
    if path.is_file() and files.sha256_of(path).encode() == path.with_suffix(".sha256").read_bytes():
        return True
    log.warning("%s is damaged: what starts from these weights has them trained again", path)
    return False


def _state_path(directory: Path, stage: str, epoch: int) -> Path:
    return directory / "stages" / stage / f"{epoch}.pt"


def table(plan: Plan, results: Mapping[str, Result]) -> pd.DataFrame:
    """Return one row per finished trial: factors, replicate, seed, fold, key, probes and all metrics."""
    rows = []
    for planned in plan.trials:
        result = results.get(planned.key)
        if result is not None:
            simple = {name: value for name, value in result.probes.items() if isinstance(value, int | float)}
            rows.append({**_where(plan, planned.key), "cells": result.query_cells, **simple, **result.metrics})
    return pd.DataFrame(rows)


def probes(plan: Plan, results: Mapping[str, Result]) -> pd.DataFrame:
    """Return every probe of every finished trial of the table: one row per trial, probe and class ('' for all)."""
    rows = []
    for planned in plan.trials:
        result = results.get(planned.key)
        for name, value in result.probes.items() if result is not None else ():
            by_class = value if isinstance(value, Mapping) else {"": value}
            where = _where(plan, planned.key) | {"probe": name}
            rows += [{**where, "class_name": one, "value": float(number)} for one, number in by_class.items()]
    return pd.DataFrame(rows)


def recalls(plan: Plan, results: Mapping[str, Result]) -> pd.DataFrame:
    """Return one row per finished trial of the table, part and true class: recall, precision, f1, support.

    `part` is ``heldout``, ``train`` or ``query`` (where truth is known). What is undefined is NaN.
    """
    rows = []
    for planned in plan.trials:
        result = results.get(planned.key)
        if result is None:
            continue
        for part in result.confusion:
            where = _where(plan, planned.key) | {"part": part}
            for name in result.truth_classes if part == "query" else result.classes:
                found = {one: result.metrics.get(f"{part}/{one}/{name}", math.nan) for one in MEASURES}
                rows.append({**where, "class_name": name, **found})
    return pd.DataFrame(rows)


def counts(plan: Plan, results: Mapping[str, Result], outcomes: Iterable[str]) -> pd.DataFrame:
    """Return a long table for attribution: one row per trial, outcome and class.

    Parameters
    ----------
    outcomes
        Such as ``heldout/recall``, ``train/recall``, ``train/precision``, ``query/recall``.

    Returns
    -------
    Columns of the factors, `replicate`, `seed`, `fold`, `trial_key`, `outcome`, `class_name` (a class, or `MACRO`, or
    `OVERALL`), `correct` and `total`. For the macro mean, `correct` is the mean times the number of cells.
    """
    rows: list[dict[str, Any]] = []
    for planned in plan.trials:
        result = results.get(planned.key)
        if result is None:
            continue
        where = _where(plan, planned.key)
        for outcome in outcomes:
            part, metric = outcome.split("/")
            if part not in result.confusion:
                continue
            matrix = np.asarray(result.confusion[part])
            correct = np.diag(matrix)
            axis = 1 if metric == "recall" else 0
            total = matrix.sum(axis=axis)[: len(correct)]
            line = {**where, "outcome": outcome}
            rows += [
                {**line, "class_name": name, "correct": float(k), "total": float(n)}
                for name, k, n in zip(result.classes, correct, total, strict=True)
            ]
            defined = total > 0
            macro = float(np.mean(correct[defined] / total[defined])) * matrix.sum()
            rows.append({**line, "class_name": MACRO, "correct": macro, "total": float(matrix.sum())})
            if metric == "recall":
                rows.append(
                    {**line, "class_name": OVERALL, "correct": float(correct.sum()), "total": float(matrix.sum())}
                )
    return pd.DataFrame(rows)


def _where(plan: Plan, key: str) -> dict[str, Any]:
    planned = plan.trial[key]
    replicate = planned.trial.replicate
    return {
        **planned.levels,
        "replicate": replicate.index,
        "seed": replicate.seed,
        "fold": replicate.fold,
        "trial_key": key,
    }
