"""What trials gave, on disk, safely.

    <study>/trials/<key>.json   a result: settings, metrics, confusion matrices, curves, probes
    <study>/trials/<key>.npz    its predictions
    <study>/trials/<key>.evidence.npz   what its labels can be judged by; trials of earlier versions have none
    <study>/trials/<key>.failed a trial that failed, with the reason; gone when it succeeds
    <study>/stages/<key>/<epoch>.pt   weights that other stages start from

A result file that exists is a trial that is done: it is written last, and it knows the checksums of what lies
beside it.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from study import files
from study.plan import Plan
from study.trials.evidence import Evidence
from study.trials.fixed import with_fixed_means
from study.trials.record import Predictions, Result

if TYPE_CHECKING:
    from study.training import State

log = logging.getLogger(__name__)


def write_result(directory: Path, result: Result, predictions: Predictions, evidence: Evidence | None = None) -> None:
    """Write a trial's predictions and its evidence, where it has any, then its result; only this makes it done."""
    values = {**asdict(result), "predictions": _write_arrays(directory, f"{result.key}.npz", predictions)}
    if evidence is not None:
        values["evidence"] = _write_arrays(directory, f"{result.key}.evidence.npz", evidence)
    text = json.dumps(values, sort_keys=True)
    body = json.dumps({"sha256": files.sha256(text.encode()), "result": values}, sort_keys=True)
    files.write(directory / "trials" / f"{result.key}.json", body.encode())
    (directory / "trials" / f"{result.key}.failed").unlink(missing_ok=True)


def _write_arrays(directory: Path, name: str, arrays: Predictions | Evidence) -> str:
    """Write a trial's arrays; return their checksum."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vars(arrays))
    return files.write(directory / "trials" / name, buffer.getvalue())


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
    if result is None or result.key != key or not _arrays_intact(directory, result):
        log.warning("%s is damaged: the trial will be trained again", path)
        return None
    return replace(result, metrics=with_fixed_means(result))  # earlier versions kept the mean of all classes


def _arrays_intact(directory: Path, result: Result) -> bool:
    expected = {f"{result.key}.npz": result.predictions}
    if result.evidence:
        expected[f"{result.key}.evidence.npz"] = result.evidence
    try:
        return all(files.sha256_of(directory / "trials" / name) == known for name, known in expected.items())
    except FileNotFoundError:
        return False


def read_predictions(directory: Path, key: str) -> Predictions:
    """Read the predictions of a finished trial."""
    with np.load(directory / "trials" / f"{key}.npz", allow_pickle=False) as arrays:
        return Predictions(**{name: arrays[name] for name in Predictions.__dataclass_fields__})


def read_evidence(directory: Path, result: Result) -> Evidence:
    """Read the evidence of a finished trial; of an earlier version's, what its predictions tell."""
    if not result.evidence:
        return Evidence.from_predictions(read_predictions(directory, result.key))
    with np.load(directory / "trials" / f"{result.key}.evidence.npz", allow_pickle=False) as arrays:
        return Evidence(**{name: arrays[name] for name in Evidence.__dataclass_fields__})


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
