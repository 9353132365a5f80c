"""Cells that tell where workers are. A module of its own: workers load it, and nothing that the driver alone needs."""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import ray

from study.cells.prepared import Cells


@dataclass(frozen=True, eq=False)
class Witness(Cells):
    """Cells that tell, whenever a worker takes them up for a stage, where it is and what it has loaded."""

    told: str = ""

    def __reduce__(self) -> tuple[object, ...]:
        plain = {name: value for name, value in vars(self).items() if name != "told"}
        return tell, (self.told, plain)


def tell(told: str, plain: dict[str, object]) -> Cells:
    """Write down what a worker sees of itself."""
    context = ray.get_runtime_context()
    facts = {
        "node": context.get_node_id(),
        "gpus": context.get_accelerator_ids()["GPU"],
        "pid": os.getpid(),
        "mlflow": "mlflow" in sys.modules,
    }
    path = Path(told) / f"{time.time_ns()}-{os.getpid()}"
    path.with_suffix(".tmp").write_text(json.dumps(facts))
    path.with_suffix(".tmp").rename(path.with_suffix(".json"))
    return Cells(**plain)  # type: ignore[arg-type]


def told(folder: Path) -> list[dict[str, object]]:
    """Return what the workers wrote, in the order of time."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
