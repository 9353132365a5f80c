"""What results were made with is known without importing it."""

import subprocess
import sys
import tomllib
from importlib.metadata import requires, version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

import study.versions
from study.commands.cli import app
from study.versions import PACKAGES, versions

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SETS = sorted(path.name for path in ROOT.glob("constraints*.txt"))


def test_a_command_tells_the_versions_of_what_results_depend_on() -> None:
    said = CliRunner().invoke(app, ["--version"])
    assert said.exit_code == 0
    found = dict(line.split(" ", 1) for line in said.stdout.splitlines())
    assert found == versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {name: found[name] for name in PACKAGES} == {name: version(name) for name in PACKAGES}
    needed = {Requirement(line).name for line in requires("scanvi-study") or []}
    assert set(PACKAGES) <= {*needed, "scanvi-study"}


def test_an_installed_copy_has_no_revision_even_inside_a_repository(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=somebody", "-c", "user.email=some@body")
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def copy() -> ModuleType:
        spec = spec_from_file_location("copy", installed)
        assert spec is not None and spec.loader is not None
        spec.loader.exec_module(made := module_from_spec(spec))
        return made

    installed = tmp_path / "environment" / "versions.py"
    installed.parent.mkdir()
    installed.write_text(Path(study.versions.__file__).read_text())
    (tmp_path / "notes").touch()
    git("init", "--quiet")
    git("add", "notes")
    git("commit", "--quiet", "--message", "notes")
    assert copy().versions()["git"] == "none"
    git("add", "environment")
    git("commit", "--quiet", "--message", "ours")
    assert copy().versions()["git"] == git("rev-parse", "HEAD")


def test_the_citation_has_the_version_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == study.__version__


@pytest.mark.parametrize("name", SETS)
def test_a_set_of_versions_has_all_that_is_needed_and_nothing_that_is_refused(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(package): pin for package, _, pin in (line.partition("==") for line in lines)}
    assert lines == sorted(lines, key=str.lower) and len(pins) == len(lines)
    extras = [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    for needed in map(Requirement, [*PROJECT["dependencies"], *extras]):
        assert pins[canonicalize_name(needed.name)] in needed.specifier, needed


def test_each_set_of_versions_is_tested_on_a_python_that_is_allowed() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["include"]
    assert sorted({one["constraints"] for one in tested}) == SETS
    assert all(one["python"] in SpecifierSet(PROJECT["requires-python"]) for one in tested)
