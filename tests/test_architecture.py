"""The order of the house: a module imports only modules before it, and heavy libraries have one door each."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent / "study"
# Read top to bottom, this is the way the data flows.
ORDER = (
    *("files", "config", "design", "simulate", "chunks"),
    *("counts", "cells", "h5ad", "sources", "data", "twins", "check"),
    *("split", "condition", "audit", "schedule", "plan"),
    *("batches", "likelihood", "fast", "engine", "snapshot", "train"),
    *("evaluate", "probes", "results", "calls", "timing", "stage"),
    *("logistic", "controls", "candidates", "search"),
    *("flips", "matching", "overtime", "sweep", "cost", "matrices", "slug", "tracking"),
    *("anova", "intervals", "effects", "findings", "tables", "fallback", "decomposition", "random_design"),
    *("attribution", "precision", "verdict"),
    *("figures", "recorded", "report", "outline", "analysis", "foresight"),
    *("status", "pipeline", "detach", "export"),
    *("transfer", "plots", "terminal", "notebook", "completion", "cli"),
)


def imports(path: Path) -> set[str]:
    """Names of all modules that a module imports anywhere, `study.x` as such."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"study.{a.name}" for a in node.names} if node.module == "study" else {node.module}
    return found


def test_every_module_has_its_place() -> None:
    assert {path.stem for path in HOUSE.glob("*.py")} - {"__init__", "__main__"} == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_modules_import_only_what_comes_before(name: str) -> None:
    later = set(ORDER[ORDER.index(name) :])
    mine = {found.split(".")[1] for found in imports(HOUSE / f"{name}.py") if found.startswith("study.")}
    if name == "terminal":
        assert mine <= {"analysis", "cost", "outline", "pipeline", "plan", "precision", "status", "verdict"}
    assert not mine & later


@pytest.mark.parametrize(
    ("library", "door"),
    [("ray", {"sweep"}), ("mlflow", {"tracking"}), ("hydra", {"config"}), ("optuna", {"candidates"})],
)
def test_each_library_has_one_door(library: str, door: set[str]) -> None:
    users = {path.stem for path in HOUSE.glob("*.py") if any(i.split(".")[0] == library for i in imports(path))}
    assert users == door


@pytest.mark.parametrize(
    ("names", "without"),
    [
        (("train", "evaluate", "attribution", "stage"), ("ray", "mlflow")),
        (("pipeline", "foresight", "export", "check"), ("torch", "scvi", "scanpy")),  # seconds of every command
    ],
)
def test_modules_start_without_libraries_they_do_not_need(names: tuple[str, ...], without: tuple[str, ...]) -> None:
    for name in names:
        code = f"import sys, study.{name}; print([library for library in {without} if library in sys.modules])"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert said.stdout.strip() == "[]", name
