"""The versions of what results depend on, read without importing any of it."""

from __future__ import annotations

import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    *("scanvi-study", "scvi-tools", "torch", "lightning", "anndata", "numpy", "scipy", "pandas"),
    *("ray", "optuna", "mlflow"),
)


@cache
def versions() -> dict[str, str]:
    """Return versions of packages and of Python, and the git revision that `study/` was last changed in.

    What is not there has the version "none".
    """
    return {**{name: _version(name) for name in PACKAGES}, "python": platform.python_version(), "git": _revision()}


def _version(package: str) -> str:
    """A stage needs neither Ray nor MLflow: a machine that only trains may lack them."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _revision() -> str:
    """A container has no git, and an installed copy no revision, though it may lie inside somebody's repository."""
    git = shutil.which("git")
    if git is None:
        return "none"
    command = [git, "-C", str(Path(__file__).parent), "log", "-1", "--format=%H", "--", "."]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "none"
