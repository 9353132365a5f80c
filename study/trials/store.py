"""What trials gave, on disk, safely.

    <study>/trials/<key>.json   a result: settings, metrics, confusion matrices, curves, probes
    <study>/trials/<key>.npz    its predictions
    <study>/trials/<key>.evidence.npz   what its labels can be judged by; trials of earlier versions have none
    <study>/trials/<key>.failed a trial that failed, with the reason; gone when it succeeds
    <study>/stages/<key>/<epoch>.pt   weights that other stages start from
    <study>/stages/<key>/<epoch>.halted   all that a training needs to go on after an epoch

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
from typing import TYPE_CHECKING, Any

import numpy as np

from study import files
from study.plan import Plan
from study.trials.evidence import Evidence
from study.trials.fixed import with_fixed_means
from study.trials.record import Predictions, Result

if TYPE_CHECKING:
    from study.training import Halted, State

log = logging.getLogger(__name__)
HALTED = ".halted"


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
        log.warning("%s is damaged: the trial counts as not finished", path)
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
    _write_tensors(_state_path(directory, stage, epoch), state)


def read_state(directory: Path, stage: str, epoch: int) -> State:
    """Read weights.

    Raises
    ------
    ValueError
        If they do not match their checksum; they are removed, so that the next run trains them again.
    """
    state: State = _read_tensors(_state_path(directory, stage, epoch))
    return state


def write_halted(directory: Path, stage: str, halted: Halted) -> None:
    """Write what a stage needs to go on, in the place of what was kept earlier."""
    path = _state_path(directory, stage, halted["epoch"]).with_suffix(HALTED)
    earlier = [other for other in path.parent.glob(f"*{HALTED}") if other != path]
    _write_tensors(path, halted)
    for other in earlier:
        _remove(other)


def read_halted(directory: Path, stage: str, epoch: int) -> Halted:
    """Read what a stage needs to go on after an epoch; raises as `read_state` does."""
    halted: Halted = _read_tensors(_state_path(directory, stage, epoch).with_suffix(HALTED))
    return halted


def halted_epochs(directory: Path, plan: Plan) -> dict[str, int]:
    """Return after which epoch stages of a plan can go on, by their key; what is damaged is said, and trained again."""
    every = (
        (stage.key, path) for stage in plan.stages for path in (directory / "stages" / stage.key).glob(f"*{HALTED}")
    )
    return {key: int(path.stem) for key, path in every if _intact(path)}


def forget_halted(directory: Path, plan: Plan) -> None:
    """Remove what nothing goes on from any more."""
    for stage in plan.stages:
        for path in (directory / "stages" / stage.key).glob(f"*{HALTED}"):
            _remove(path)


def _remove(path: Path) -> None:
    _checksum_of(path).unlink(missing_ok=True)
    path.unlink()


def _write_tensors(path: Path, values: Any) -> None:
    import torch  # slow to import, and only stages need it

    buffer = io.BytesIO()
    torch.save(values, buffer)
    checksum = files.write(path, buffer.getvalue())
    files.write(_checksum_of(path), checksum.encode())


def _read_tensors(path: Path) -> Any:
    import torch

    content = path.read_bytes()
    if files.sha256(content).encode() != _checksum_of(path).read_bytes():
        _checksum_of(path).unlink()
        raise ValueError(f"{path} is damaged; it has been discarded, run again to train it anew")
    return torch.load(io.BytesIO(content), weights_only=True)


def kept_states(directory: Path, plan: Plan) -> set[tuple[str, int]]:
    """Return which weights of a plan are on disk and whole, as (stage key, epoch); damaged ones are said."""
    every = ((stage.key, epoch) for stage in plan.stages for epoch in stage.keep)
    return {(key, epoch) for key, epoch in every if _intact(_state_path(directory, key, epoch))}


def _intact(path: Path) -> bool:
    if not _checksum_of(path).is_file():
        return False
    if path.is_file() and files.sha256_of(path).encode() == _checksum_of(path).read_bytes():
        return True
    log.warning("%s is damaged: what starts from these weights has them trained again", path)
    return False


def _state_path(directory: Path, stage: str, epoch: int) -> Path:
    return directory / "stages" / stage / f"{epoch}.pt"


def _checksum_of(path: Path) -> Path:
    """Where the checksum of weights is, or of what a training goes on from."""
    return path.with_suffix(".sha256" if path.suffix == ".pt" else f"{HALTED}.sha256")
