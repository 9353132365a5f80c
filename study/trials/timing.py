"""What a stage took: a small record beside its weights, of its last training. Nothing of it enters a result."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from study import files
from study.cells import Cells
from study.plan import Stage
from study.training import Hardware

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """What one stage was, what it ran on, and its seconds.

    Attributes
    ----------
    hardware
        What it ran on. On disk its fields lie beside the others.
    cells, genes, classes
        Size of its condition: reference and query together.
    network
        Layers, hidden units and batch size.
    trials
        How many were read from it.
    setup, training, evaluation, writing
        Seconds before the first minibatch, of training, of predictions and what is computed from them, and of writing;
        what stages did as one is shared out, so that the seconds of all add up to those of workers.
    reached
        Seconds of training at each epoch level, as (epoch, seconds).
    seconds
        Of everything.
    started, ended
        Seconds since 1970; of a group, when it started and when this record was made.
    worker
        The process that trained it.
    """

    key: str
    kind: str
    hardware: Hardware
    cells: int
    genes: int
    classes: int
    network: tuple[int, int, int]
    steps_per_epoch: int
    epochs: int
    steps: int
    trials: int
    setup: float
    training: float
    evaluation: float
    writing: float
    reached: tuple[tuple[int, float], ...]
    seconds: float
    started: float
    ended: float
    worker: str


class Stopwatch:
    """Adds up the seconds of named parts; a part inside another one counts for itself alone."""

    def __init__(self) -> None:
        self.started, self.seconds = time.time(), defaultdict[str, float](float)
        self._open: list[str] = []
        self._since = self._start = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside as a part."""
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Count what happens inside as training, and as setup what comes before a network is first called."""
        from torch.nn.modules.module import register_module_forward_pre_hook  # slow: not for those who only read

        def called(*_: Any) -> None:
            self._turn()
            self._open[-1] = "training"
            hook.remove()

        with self.part("setup"):
            hook = register_module_forward_pre_hook(called)
            try:
                yield
            finally:
                hook.remove()

    @property
    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


def timing_of(
    stage: Stage,
    cells: Cells,
    on: Hardware,
    seconds: Mapping[str, float],
    total: float,
    watch: Stopwatch,
    reached: Sequence[tuple[int, float]],
) -> Timing:
    """Return the record of a stage that has just ended.

    Parameters
    ----------
    seconds
        Of each part, of this stage alone.
    total
        Of everything.
    watch
        Since when it, or its group, was at work.
    reached
        Seconds of training at each epoch level.
    """
    scvi = stage.settings.scvi
    return Timing(
        key=stage.key,
        kind=stage.kind,
        hardware=on,
        cells=cells.counts.shape[0],
        genes=cells.counts.shape[1],
        classes=len(cells.classes),
        network=(scvi.n_layers, scvi.n_hidden, scvi.batch_size),
        steps_per_epoch=stage.steps_per_epoch,
        epochs=stage.training,
        steps=stage.length,
        trials=len(stage.trials),
        setup=seconds.get("setup", 0.0),
        training=seconds.get("training", 0.0),
        evaluation=seconds.get("evaluation", 0.0),
        writing=seconds.get("writing", 0.0),
        reached=tuple(reached),
        seconds=total,
        started=watch.started,
        ended=time.time(),
        worker=worker_name(),
    )


def worker_name() -> str:
    """Return a name for this process that no other on any node has."""
    return f"{os.uname().nodename}:{os.getpid()}"


def write_timing(directory: Path, timing: Timing) -> None:
    """Write the record of a stage, with its checksum."""
    values = asdict(timing)
    values |= values.pop("hardware")
    body = {"sha256": files.sha256(json.dumps(values, sort_keys=True).encode()), "timing": values}
    files.write(directory / "stages" / timing.key / "timing.json", json.dumps(body, sort_keys=True).encode())


def read_timings(directory: Path) -> list[Timing]:
    """Return the records of a study, first started first. Old studies have none; a broken one is said and left out."""
    found = []
    for path in directory.glob("stages/*/timing.json"):
        try:
            body = json.loads(path.read_bytes())
            if body["sha256"] != files.sha256(json.dumps(body["timing"], sort_keys=True).encode()):
                raise ValueError("wrong checksum")
            found.append(_timing(body["timing"]))
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s is damaged (%s): its timing is not used", path, error)
    return sorted(found, key=lambda one: one.started)


def _timing(values: dict[str, Any]) -> Timing:
    """Make a record from what JSON holds of it."""
    hardware = Hardware(**{one.name: values.pop(one.name) for one in fields(Hardware)})
    network = tuple(values.pop("network"))
    reached = tuple((int(epoch), float(seconds)) for epoch, seconds in values.pop("reached"))
    return Timing(**values, hardware=hardware, network=network, reached=reached)
