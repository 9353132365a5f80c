"""`tracking=server` for real: Debian's PostgreSQL, `deploy/mlflow-server.sh` on it, and a study that both keep."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from study.tracking.slug import metric_name
from study.trials.store import read_result
from tests.system.conftest import REPOSITORY, Workplace, answers, kill_group

PASSWORD = "not-for-any-log"
DEADLINE = 120


def programs() -> Path:
    """The folder of PostgreSQL's programs; the test is skipped where there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    return found[-1].parent


def a_free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def database() -> Iterator[dict[str, str]]:
    """A PostgreSQL of one's own on 127.0.0.1, as the environment that leads to it; it refuses to run as root."""
    where = programs()
    user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    others: dict[str, Any] = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    own: dict[str, Any] = others if os.geteuid() == 0 else {}
    port = a_free_port()
    settings = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "mlflow", "PGPASSWORD": PASSWORD}
    # Not in pytest's folder, where another user has no way in; and short, for the path of a socket.
    with tempfile.TemporaryDirectory(prefix="pg-") as folder, ExitStack() as stack:
        place = Path(folder)
        (place / "password").write_text(PASSWORD)
        for path in (place, place / "password"):
            shutil.chown(path, user)
        login = ["--username=mlflow", "--auth=scram-sha-256", f"--pwfile={place / 'password'}"]
        made = [where / "initdb", f"--pgdata={place / 'data'}", *login, "--encoding=UTF8", "--no-sync"]
        subprocess.run(made, cwd=place, check=True, stdout=subprocess.DEVNULL, **own)
        serving = [where / "postgres", "-D", place / "data", "-h", "127.0.0.1", "-p", str(port), "-k", place]
        running = subprocess.Popen(
            [*serving, "-c", "fsync=off"], cwd=place, stderr=stack.enter_context((place / "log").open("w")), **own
        )
        try:
            environment = {**os.environ, **settings}
            until = time.monotonic() + DEADLINE
            while subprocess.run([where / "createdb", "mlflow"], env=environment, stderr=subprocess.DEVNULL).returncode:
                assert running.poll() is None and time.monotonic() < until, (place / "log").read_text()
                time.sleep(0.2)
            yield settings
        finally:
            running.terminate()
            running.wait()


@pytest.fixture
def address(database: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """`deploy/mlflow-server.sh` on that database."""
    port = a_free_port()
    environment = {
        **os.environ,
        **database,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PORT": str(port),
        "ARTIFACTS": str(tmp_path / "artifacts"),
    }
    log = tmp_path / "server.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["bash", str(REPOSITORY / "deploy" / "mlflow-server.sh")],
            env=environment,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + DEADLINE
        while not answers(port):
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        kill_group(process)
        process.wait()
    assert PASSWORD not in log.read_text()


def shown(address: str) -> tuple[dict[str, Run], list[Run]]:
    """Runs of trials by key (each once), and all others, as the server has them."""
    client = MlflowClient(address)
    (experiment,) = (one for one in client.search_experiments() if one.name == "pbmc68k-tiny")
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000))
    trials = [run for run in runs if "trial_key" in run.data.tags]
    found = {run.data.tags["trial_key"]: run for run in trials}
    assert len(found) == len(trials), "a trial has two runs"
    return found, [run for run in runs if run not in trials]


def test_a_server_with_postgresql_keeps_what_is_on_disk(
    address: str, finished: Workplace, workplace: Workplace, tiny: Callable[..., list[str]], tmp_path: Path
) -> None:
    shutil.copytree(finished.folder / "studies", workplace.folder / "studies")
    folder = workplace.folder / "studies" / "pbmc68k-tiny"
    next(folder.glob("trials/*.json")).unlink()
    words = tiny("tracking=server", f"tracking.uri={address}")
    said = workplace.call("run", *words)
    assert "1 trained now" in said.stdout
    trials, (parent,) = shown(address)
    assert trials.keys() == {path.stem for path in folder.glob("trials/*.json")}
    assert len(trials) == 16
    for key, run in trials.items():
        result = read_result(folder, key)
        assert result is not None
        assert run.info.status == "FINISHED"
        expected = {metric_name(name): value for name, value in result.metrics.items()}
        assert {name: run.data.metrics[name] for name in expected} == pytest.approx(expected, nan_ok=True)
        assert run.info.end_time == int(result.finished * 1000)
    assert parent.info.status == "FINISHED"
    artifacts = {path.name for path in (tmp_path / "artifacts").rglob("*") if path.is_file()}
    assert {"report.html", "config.yaml", "trials.csv", "confusion.html"} <= artifacts
    assert not (workplace.folder / "mlruns" / "mlflow.db").exists(), "nothing is kept beside the server"

    workplace.call("sync", *words)
    again, _ = shown(address)
    assert {key: run.to_dictionary() for key, run in again.items()} == {
        key: run.to_dictionary() for key, run in trials.items()
    }
