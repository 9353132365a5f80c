"""The order of the house: a room imports only rooms above it and only through their doors; modules keep their size."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent / "study"
# Read top to bottom, this is the way the data flows.
ROOMS = (
    *("errors", "files", "imports", "seeds", "versions", "config", "cells", "plan", "training", "trials"),
    *("sweep", "tracking", "attribution", "verdict", "trust", "diagnosis", "studies", "report", "commands"),
)
MODULES = sorted(path for path in HOUSE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))


def room_of(path: Path) -> str:
    return path.relative_to(HOUSE).with_suffix("").parts[0]


def order_of(room: str) -> list[str]:
    """Names of the modules of a room in the order in which its first lines say that the data flows."""
    text = ast.get_docstring(ast.parse((HOUSE / room / "__init__.py").read_text())) or ""
    return text.partition("In the order of flow: ")[2].rstrip(".").replace("\n", " ").split(", ")


def door_of(room: str) -> set[str]:
    """Names that a room hands out."""
    tree = ast.parse((HOUSE / room / "__init__.pyi").read_text())
    return {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def imported(path: Path) -> list[tuple[str, str]]:
    """What a module imports anywhere: (module, name); the name is empty where the module itself is imported."""
    found: list[tuple[str, str]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.module, alias.name) for alias in node.names]
    return found


def test_every_room_has_its_place_and_lists_its_modules() -> None:
    assert {room_of(path) for path in MODULES} == set(ROOMS)
    for room in ROOMS:
        if (HOUSE / room).is_dir():
            assert set(order_of(room)) == {path.stem for path in MODULES if room_of(path) == room}, room


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_module_imports_only_what_comes_before_it_and_through_doors(path: Path) -> None:
    mine = room_of(path)
    for module, name in imported(path):
        parts = module.split(".")
        if parts[0] != "study":
            continue
        room, *inside = parts[1:] or [name]
        if room == mine:
            assert order_of(mine).index(inside[0]) < order_of(mine).index(path.stem), (module, name)
            continue
        assert ROOMS.index(room) < ROOMS.index(mine), (module, name)
        if (HOUSE / room).is_dir():
            assert not inside, f"{module} is behind the door of {room}"
            assert name in door_of(room), f"{room} does not hand out {name}"


def test_doors_hand_out_only_what_other_rooms_use() -> None:
    used = {
        (module.split(".")[1], name)
        for path in HOUSE.rglob("*.py")
        for module, name in imported(path)
        if "study." in module
    }
    for room in ROOMS:
        if (HOUSE / room).is_dir():
            assert door_of(room) - {"load", "validate"} <= {name for where, name in used if where == room}, room


@pytest.mark.parametrize(
    ("library", "door"),
    [("ray", "sweep"), ("mlflow", "tracking"), ("hydra", "config/composition"), ("optuna", "studies/candidates")],
)
def test_each_library_has_one_door(library: str, door: str) -> None:
    users = {str(p.relative_to(HOUSE)) for p in MODULES if any(m.split(".")[0] == library for m, _ in imported(p))}
    assert users and all(user.startswith(door) for user in users)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_modules_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


@pytest.mark.parametrize(
    ("names", "without"),
    [
        (("training.models", "trials.perform", "attribution.attribute"), ("ray", "mlflow")),
        # Seconds of every command.
        (("commands.pipeline", "commands.foresight", "studies.export", "cells.check"), ("torch", "scvi", "scanpy")),
        # What every command line begins with, --help and completion among them.
        (("commands.cli",), ("numpy", "pandas", "torch")),
    ],
)
def test_modules_start_without_libraries_they_do_not_need(names: tuple[str, ...], without: tuple[str, ...]) -> None:
    for name in names:
        code = f"import sys, study.{name}; print([library for library in {without} if library in sys.modules])"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert said.stdout.strip() == "[]", name
