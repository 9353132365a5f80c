"""A small study to be broken: its folder, its commands, and what is lost, doubled or different at its end."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from study import files
from study.trials.store import read_predictions, read_result

SPACE = """
name: broken
design: factorial
factors:
  query: {levels: [asis, shallow]}
  scanvi.max_epochs: {levels: [2, 4]}
replicates: 2
"""
SETTINGS = ["data=pbmc68k-fine", "space=broken", "name=study", "scvi.n_hidden=16", "scvi.n_latent=4", "query_cells=60"]
TRIALS = 8
STAGES = 8
WORKER = "ResourceTrainable"
LIMIT = 600  # seconds that any command may take


@dataclass
class Row:
    """What a fault did, summed over how often it was tried.

    Attributes
    ----------
    lost
        Trials that were not FINISHED in MLflow, with a result on disk, once all was done.
    doubled
        Runs of trials beyond the first.
    different
        Trials and tables that are not bit for bit those of the study that nothing happened to.
    wrong
        What else was not as it must be: an exit code, a message, something left behind.
    """

    fault: str
    tried: int = 0
    lost: int = 0
    doubled: int = 0
    different: int = 0
    wrong: list[str] = field(default_factory=list)
    note: str = ""
    seconds: float = 0.0

    def expect(self, true: object, otherwise: str) -> None:
        """Note what is wrong unless something is true."""
        if not true:
            self.wrong.append(otherwise)


class Place:
    """A folder made by `init`, where `scanvi-study` runs as a user would run it."""

    def __init__(self, folder: Path, epochs: int) -> None:
        self.folder, self.settings = folder, [*SETTINGS, f"scvi.max_epochs={epochs}"]
        # Ray writes to HOME, and its sockets need a short path.
        self.environment = {**os.environ, "HOME": str(folder), "RAY_TMPDIR": "/tmp"}
        folder.mkdir(parents=True)
        subprocess.run([sys.executable, "-m", "study", "init", str(folder)], check=True, capture_output=True)
        (folder / "search_spaces" / "broken.yaml").write_text(SPACE)

    @property
    def study(self) -> Path:
        """The folder of the study."""
        return self.folder / "studies" / "study"

    @property
    def database(self) -> Path:
        """The local database of MLflow."""
        return self.folder / "mlruns" / "mlflow.db"

    def start(self, *words: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command on the study, in a process group of its own."""
        command, *more = words or ("run",)
        # To a file: a pipe that nobody reads would fill, and one that Ray inherits would not end.
        with (self.folder / "said.txt").open("w") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "study", command, *self.settings, *more],
                cwd=self.folder,
                env={**self.environment, **(environment or {})},
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def said(self) -> str:
        """What the last command has said."""
        return (self.folder / "said.txt").read_text(errors="replace")

    def call(self, *words: str, environment: Mapping[str, str] | None = None) -> int:
        """Run a command to its end; return its exit code."""
        return end(self.start(*words, environment=environment))

    def done(self) -> int:
        """How many trials have a result on disk."""
        return len(list((self.study / "trials").glob("[!.]*.json")))

    def contents(self) -> dict[str, object]:
        """Everything that the study found, but for when and how long."""
        found: dict[str, object] = {}
        for path in (self.study / "trials").glob("[!.]*.json"):
            result = read_result(self.study, path.stem)
            if result is not None:
                arrays = vars(read_predictions(self.study, path.stem))
                bits = {name: array.tobytes() for name, array in arrays.items()}
                found[path.stem] = (result.metrics, result.confusion, result.curves, result.probes, bits)
        return found | {path.name: files.sha256_of(path) for path in (self.study / "tables").glob("*.csv")}

    def judge(self, row: Row, reference: Mapping[str, object], database: Path | None = None) -> None:
        """Add what is lost, doubled and different to a row."""
        here, runs = self.contents(), runs_of(database or self.database)
        finished = Counter(key for key, status in runs if status == "FINISHED")
        keys = {name for name in reference if not name.endswith(".csv")}
        row.lost += sum(key not in here or not finished[key] for key in keys)
        row.doubled += len(runs) - len({key for key, _ in runs})
        row.different += sum(here.get(name) != content for name, content in reference.items())
        row.expect({status for _, status in runs} <= {"FINISHED"}, f"runs are {Counter(s for _, s in runs)}")
        left = [path.name for path in self.study.rglob(".*") if files.ASIDE in path.name or path.name[:4] == ".ray"]
        row.expect(not left, f"left behind: {left[:3]}")

    def stages(self) -> int:
        """How many stages are done."""
        return len(list(self.study.glob("stages/*/[!.]*.json")))

    def reached(self, process: subprocess.Popen[str], stages: int) -> bool:
        """Whether so many stages are done, or for 0 a worker trains."""
        return self.stages() >= stages if stages else bool(workers(process, ".train"))


def end(process: subprocess.Popen[str]) -> int:
    """Wait for a command, and end what is left of its group; return its exit code."""
    try:
        return process.wait(LIMIT)
    finally:
        kill_group(process)


def kill_group(process: subprocess.Popen[str]) -> None:
    """End a command that we started with all of its group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def wait(true: Callable[[], bool], process: subprocess.Popen[str]) -> bool:
    """Wait until something is true; False if a command ended before."""
    deadline = time.monotonic() + LIMIT
    while not true():
        if process.poll() is not None:
            return False
        if time.monotonic() > deadline:
            raise TimeoutError("nothing happened")
        time.sleep(0.05)
    return True


def descendants(process: subprocess.Popen[str]) -> list[tuple[psutil.Process, str]]:
    """Return what a command has started, with command lines."""
    found = []
    try:
        for one in psutil.Process(process.pid).children(recursive=True):
            try:
                found.append((one, " ".join(one.cmdline())))
            except psutil.Error:
                continue  # it has just ended
    except psutil.NoSuchProcess:
        return []
    return found


def workers(process: subprocess.Popen[str], doing: str = "") -> list[psutil.Process]:
    """Return the workers of a command, by the name that Ray gives them."""
    return [one for one, line in descendants(process) if line.startswith(f"ray::{WORKER}{doing}")]


def runs_of(database: Path) -> list[tuple[str, str]]:
    """Return (trial key, status) of every run of a trial in a database of MLflow."""
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        return connection.execute(
            "select t.value, r.status from runs r join tags t on t.run_uuid = r.run_uuid and t.key = 'trial_key' "
            "where r.lifecycle_stage = 'active'"
        ).fetchall()


def reasons_of(database: Path) -> list[str]:
    """Return the reasons of failed runs in a database of MLflow."""
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        query = "select t.value from runs r join tags t on t.run_uuid = r.run_uuid and t.key = 'reason'"
        return [reason for (reason,) in connection.execute(f"{query} where r.status = 'FAILED'")]


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold the lock of an sqlite database, from another process."""
    code = "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None); "
    code += "c.execute('begin exclusive'); print('locked', flush=True); time.sleep(3600)"
    with subprocess.Popen([sys.executable, "-c", code, str(database)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        try:
            yield
        finally:
            holder.kill()
