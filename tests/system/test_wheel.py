"""An installed copy works outside the repository, with the conf/ and search_spaces/ that it brings."""

import os
import subprocess
import sys
from pathlib import Path

from tests.system.conftest import REPOSITORY, install


def test_the_wheel_brings_all_it_needs(tmp_path: Path) -> None:
    installed, elsewhere = install(tmp_path / "wheel"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(installed), "HOME": str(tmp_path)}

    def call(*words: str) -> str:
        command = [
            sys.executable,
            "-c",
            "import study.commands.entry, sys; print(study.__file__); study.commands.entry.main()",
            *words,
        ]
        done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=True)
        where, _, said = done.stdout.partition("\n")
        assert where.startswith(str(installed)), "the copy under test is the installed one"
        return said

    assert "192 trials" in call("plan")
    call("init", "mine")
    made = {path.relative_to(elsewhere / "mine") for path in (elsewhere / "mine").rglob("*.yaml")}
    shipped = {
        path.relative_to(REPOSITORY) for top in ("conf", "search_spaces") for path in (REPOSITORY / top).rglob("*.yaml")
    }
    assert made == shipped
    assert (installed / "study" / "py.typed").is_file(), "type checkers read the hints of an installed copy"
