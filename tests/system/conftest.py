"""A folder of one's own with a tiny study: real cells, real training, small networks and few epochs."""

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from study.trials.store import read_predictions, read_result

REPOSITORY = Path(__file__).parents[2]
TINY = """
name: tiny
design: factorial
factors:
  query: {levels: [asis, shallow]}
  scanvi.n_samples_per_label: {levels: [5, all]}
  scanvi.max_epochs: {levels: [1, 3]}
replicates: 2
folds: 3
controls: []
"""
SMALL = ["space=tiny", "scvi.max_epochs=2", "scvi.n_hidden=16", "scvi.n_latent=4", "query_cells=60"]


class Workplace:
    """Runs `scanvi-study` as a user would, in a folder made by `init`, with a HOME of its own (Ray writes there)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "my-study"
        self.environment = {**os.environ, "HOME": str(folder), "RAY_TMPDIR": "/tmp", "COLUMNS": "120"}
        if not self.folder.is_dir():
            self.call("init", str(self.folder), cwd=folder)
            (self.folder / "search_spaces" / "tiny.yaml").write_text(TINY)

    def start(self, *words: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        """Start a command in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "study", *words],
            cwd=cwd or self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def call(self, *words: str, expect: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and check its exit code."""
        process = self.start(*words, cwd=cwd)
        try:
            out, err = process.communicate(timeout=400)
        finally:
            kill_group(process)
        assert process.returncode == expect, f"{words}: exit {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def runs(self) -> list[tuple[str, str]]:
        """Return (trial key, status) of every trial run in MLflow's database."""
        return self.runs_in(self.folder / "mlruns" / "mlflow.db")

    @staticmethod
    def runs_in(path: Path) -> list[tuple[str, str]]:
        """Return (trial key, status) of every trial run in some MLflow database."""
        with sqlite3.connect(path) as database:
            return database.execute(
                "select t.value, r.status from runs r join tags t on t.run_uuid = r.run_uuid and t.key = 'trial_key' "
                "where r.lifecycle_stage = 'active'"
            ).fetchall()


def install(folder: Path) -> Path:
    """Build the wheel, install it alone into a folder, and return that; PYTHONPATH then makes it the one in use."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(REPOSITORY)]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "installed"), str(wheel)], check=True)
    return folder / "installed"


def kill_group(process: subprocess.Popen[str]) -> None:
    """End what is left of a command that we started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Workplace:
    """One tiny study, run to its end without interruption, once for all workers; tests only read it."""
    alone = worker_id == "master"
    folder = tmp_path_factory.mktemp("finished") if alone else tmp_path_factory.getbasetemp().parent / "finished"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        place = Workplace(folder)
        if not (folder / "done").exists():
            place.call("run", *SMALL)
            (folder / "done").touch()
    return place


@pytest.fixture
def tiny() -> Callable[..., list[str]]:
    """Overrides of the tiny study."""
    return lambda *more: [*SMALL, *more]


def trials(place: Workplace, name: str = "pbmc68k-tiny") -> dict[str, dict[str, object]]:
    """Everything a study found, by trial key, but for when and how long."""
    folder = place.folder / "studies" / name
    found = {}
    for path in (folder / "trials").glob("*.json"):
        result = read_result(folder, path.stem)
        assert result is not None
        predictions = read_predictions(folder, path.stem)
        found[path.stem] = {
            "metrics": result.metrics,
            "curves": result.curves,
            "probabilities": predictions.probabilities.tobytes(),
            "query": predictions.query_confidence.tobytes(),
        }
    return found


def answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
