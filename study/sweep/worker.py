"""What a worker does: it performs one stage or group of stages after the other, or stands by until there is one.

Importing scvi-tools takes a worker seconds, and Tune ends a worker that it has no trial for. So one that has no stage
is given none to perform: it imports what it will need, and waits to be told that it is wanted.
"""

from __future__ import annotations

import gc
import json
import pickle
import re
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray import tune

from study import files
from study.cells import Cells
from study.config import Resources
from study.errors import WritingError
from study.imports import uncollected
from study.plan import Stage
from study.sweep.overtime import limited
from study.training import Hardware

LONGEST = 400  # characters of a reason
# Seconds that a worker stands by: a folder shared by nodes may show a new file as late as that.
STANDING, LOOKING = 5.0, 0.02


class Failed(Exception):
    """Why a stage failed, as JSON on a line: of what a worker raises, Tune keeps a text for everybody to read.

    Where a text has no such line, the stage itself did not fail: its worker or node was lost, or was killed for memory
    by Ray or the operating system.
    """

    @classmethod
    def because(cls, reason: str, unwritten: bool = False) -> Failed:
        """Return the exception; not in the constructor, which is called again when it is unpickled."""
        return cls(json.dumps({"reason": reason, "unwritten": unwritten}))

    @staticmethod
    def read(text: str) -> dict[str, Any] | None:
        """Return what a text says of the failure of a stage; None if nothing."""
        lines = re.findall(r"\bFailed: (\{.*\})\s*$", text, re.MULTILINE)
        found: dict[str, Any] | None = json.loads(lines[-1]) if lines else None
        return found


class Worker(tune.Trainable):  # type: ignore[misc]
    """Performs one stage, or group of stages, after the other."""

    def setup(
        self, config: dict[str, Any], cells: Mapping[str, Any], directory: str, scratch: str, resources: Resources
    ) -> None:
        """Take what all stages have in common."""
        self._cells, self._resources = cells, resources
        self._directory, self._scratch = Path(directory), Path(scratch)
        self._known: tuple[int, Mapping[str, Stage]] = (-1, {})
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take what is asked for next."""
        self._asked = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Perform what was asked for, or stand by."""
        # Takes seconds. In `setup` Tune would wait for it, and hand the stage to a worker that is ready meanwhile.
        with uncollected():
            from study.trials import perform_group

        _freeze()
        if "go" in self._asked:
            _stand_by(Path(self._asked["go"]))
            return {"done": True}
        group = self._stages()
        cells: Cells = ray.get(self._cells[group[0].condition.query])
        try:
            with limited(self._resources.stage_minutes, self._scratch / group[0].key):
                failed = perform_group(group, cells, self._directory, Hardware.of(self._resources))
        except WritingError as error:
            raise Failed.because(str(error), unwritten=True) from error
        except Exception as error:
            raise Failed.because(_reason(error)) from error
        finally:
            gc.collect()  # models are in cycles, and would hold their cells until Python finds the time
        return {"done": True, "failed": {key: _reason(error) for key, error in failed.items()}}

    def _stages(self) -> list[Stage]:
        number = self._asked["round"]
        if self._known[0] != number:
            self._known = number, pickle.loads(_round(self._scratch, number).read_bytes())
        return [self._known[1][key] for key in self._asked["stages"]]


def write_round(scratch: Path, number: int, stages: Mapping[str, Stage]) -> None:
    """Write the stages of a round by key, for workers to read; a search calls for them round after round.

    Raises
    ------
    WritingError
        If the disk does not take them.
    """
    files.write(_round(scratch, number), pickle.dumps(stages))


def short(text: str) -> str:
    """Return a text on one line, cut where it gets too long."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def _reason(error: Exception) -> str:
    """Return what kind of error it is and what it says."""
    return f"{type(error).__name__}: {short(str(error))}"


def _round(scratch: Path, number: int) -> Path:
    return scratch / f"round-{number}.pickle"


def _stand_by(go: Path) -> None:
    """Wait until a file is there, but not for long: Tune then asks what else there is to do."""
    until = time.monotonic() + STANDING
    while not go.exists() and time.monotonic() < until:
        time.sleep(LOOKING)


@cache
def _freeze() -> None:
    """Keep the garbage collector away, once, from what is imported: it would take half a second after each stage."""
    gc.freeze()
