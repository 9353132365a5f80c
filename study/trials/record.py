"""One finished trial: its result, its predictions, and the versions that they were made with."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PACKAGES = ("scvi-tools", "torch", "lightning", "anndata", "numpy", "scipy", "ray", "optuna", "mlflow", "scanvi-study")


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
