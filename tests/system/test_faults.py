"""What breaks beside a kill: a full disk, a tracking server that goes, damaged files, trainings that fail or hang."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from study.cells.prepared import class_names
from study.config.composition import compose
from study.studies.study import open_study
from study.tracking.mirror import Projection
from study.trials.store import read_all, read_result
from tests.system.conftest import SMALL, Workplace, answers, kill_group, trials

# Of each pair of levels the second breaks: an infinite loss, a network that no memory holds, a training without end.
BROKEN = """
name: broken
design: factorial
factors:
  scanvi.classification_ratio: {levels: [50, 1.0e+39]}
  scvi.n_latent: {levels: [3, 1000000000000000]}
  scanvi.max_epochs: {levels: [1, 1000000]}
replicates: 1
controls: []
"""


@pytest.fixture
def copied(finished: Workplace, workplace: Workplace) -> Workplace:
    """The finished study in a folder of one's own."""
    shutil.copytree(finished.folder / "studies", workplace.folder / "studies")
    return workplace


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_damage_is_found_and_said_and_trained_again(
    copied: Workplace, finished: Workplace, tiny: Callable[..., list[str]]
) -> None:
    """In a result, in predictions, in weights that are needed for them, and in prepared counts."""
    folder = copied.folder / "studies" / "pbmc68k-tiny"
    first, second = sorted((folder / "trials").glob("*.json"))[:2]
    flip(first)
    flip(second.with_suffix(".npz"))
    for path in (*folder.glob("stages/*/*.pt"), next(folder.glob("counts/*/counts_data.npy"))):
        flip(path)
    said = copied.call("run", *tiny())
    for damaged in (first.name, second.name, ".pt is damaged", "counts_data"):
        assert damaged in said.stderr
    assert "2 trained now, 14 were already done" in " ".join(said.stdout.split())
    assert trials(copied) == trials(finished)
    assert sorted(copied.runs()) == sorted(finished.runs())


def in_a_small_disk(script: str, place: Workplace) -> subprocess.CompletedProcess[str]:
    """Run a shell script where a small disk may be mounted, which nobody else sees."""
    words = ["unshare", "--mount", "--map-root-user", "sh", "-ec", script]
    environment = {**place.environment, "RUN": f"{sys.executable} -m study run {' '.join(SMALL)}"}
    process = subprocess.Popen(
        words,
        cwd=place.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=400)
    finally:
        kill_group(process)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def test_a_full_disk_ends_a_run_with_one_message_and_the_next_goes_on(
    workplace: Workplace, finished: Workplace
) -> None:
    mount = "mkdir -p studies; mount -t tmpfs -o size={size} none studies"
    if in_a_small_disk(mount.format(size="1m"), workplace).returncode:
        pytest.skip("no small disk can be mounted here")
    counts = sum(path.stat().st_size for path in finished.folder.glob("studies/*/counts/**/*"))
    script = f"""
        {mount.format(size="{size}")}
        $RUN || echo "preparing: exit $?" >&2
        mount -o remount,size={counts + 400_000} studies
        $RUN || echo "training: exit $?" >&2
        mount -o remount,size=1g studies
        $RUN
        cp -r studies whole
    """.replace("{size}", str(counts // 2))
    ended = in_a_small_disk(script, workplace)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "preparing: exit 1" in ended.stderr
    assert "training: exit 1" in ended.stderr
    assert ended.stderr.count("cannot be written") == 2, ended.stderr
    (workplace.folder / "studies").rmdir()
    (workplace.folder / "whole").rename(workplace.folder / "studies")
    assert trials(workplace) == trials(finished)
    assert sorted(workplace.runs()) == sorted(finished.runs())


@contextmanager
def server(folder: Path, port: int) -> Iterator[None]:
    """Run an MLflow server on this machine."""
    store = ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--artifacts-destination", str(folder / "a")]
    address = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "server.txt").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *address, *store],
            # Else a dozen processes wait for jobs.
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while not answers(port):
            assert time.monotonic() < deadline, (folder / "server.txt").read_text()
            time.sleep(0.1)
        yield
    finally:
        kill_group(process)
        process.wait()


def test_a_tracking_server_that_stops_does_not_stop_training(
    copied: Workplace, finished: Workplace, tiny: Callable[..., list[str]]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = tiny("tracking=server", f"tracking.uri=http://127.0.0.1:{port}")
    copied.environment["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    folder = copied.folder / "studies" / "pbmc68k-tiny"
    sorted((folder / "trials").glob("*.json"))[0].unlink()
    database = copied.folder / "server.db"
    with server(copied.folder, port):
        process = copied.start("run", *words)
        # Later than the run of the study: a server that stops before that was answered is refused, with exit 2.
        while not (database.is_file() and ("trial",) in kinds(database)):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 1, out + err
    assert "MLflow is behind" in out
    assert "scanvi-study sync" in out
    assert "Traceback" not in err
    assert trials(copied) == trials(finished), "it was trained all the same"
    with server(copied.folder, port):
        copied.call("sync", *words)
    assert sorted(Workplace.runs_in(database)) == sorted(finished.runs())


def kinds(database: Path) -> list[tuple[str]]:
    """What kinds of runs a database of MLflow has."""
    with closing(sqlite3.connect(database)) as connection:
        if not connection.execute("select 1 from sqlite_master where name = 'tags'").fetchall():
            return []
        return connection.execute("select value from tags where key = 'kind'").fetchall()


def test_what_fails_is_said_and_the_rest_is_trained(workplace: Workplace, tiny: Callable[..., list[str]]) -> None:
    (workplace.folder / "search_spaces" / "broken.yaml").write_text(BROKEN)
    words = [*tiny("name=study", "resources.stage_minutes=0.3")[1:], "space=broken"]
    said = workplace.call("run", *words, expect=1)
    assert "Traceback" not in said.stderr
    folder = workplace.folder / "studies" / "study"
    (done,) = [read_result(folder, path.stem) for path in (folder / "trials").glob("*.json")]
    assert done is not None
    assert done.epochs["fine-tuning"] == 1
    assert done.settings["scanvi"]["classification_ratio"] == 50
    runs = dict(workplace.runs())
    assert len(runs) == len(workplace.runs()) == 8
    assert [key for key, status in runs.items() if status == "FINISHED"] == [done.key], "its training hung only later"
    assert list(runs.values()).count("FAILED") == 7
    with closing(sqlite3.connect(workplace.folder / "mlruns" / "mlflow.db")) as connection:
        reasons = [reason for (reason,) in connection.execute("select value from tags where key = 'reason'")]
    blocked = "blocked: the pretraining it starts from failed: RuntimeError"
    starts = [
        *["TrainingError: the training loss is nan"] * 2,
        *[blocked] * 4,
        "took longer than resources.stage_minutes",
    ]
    assert [reason.startswith(start) for reason, start in zip(sorted(reasons), starts, strict=True)] == [True] * 7
    page = (folder / "report.html").read_text()
    for reason in ("the training loss is", "RuntimeError", "took longer than"):
        assert reason in page


def test_a_locked_database_is_waited_for(copied: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than the five seconds that sqlite waits by itself."""
    monkeypatch.chdir(copied.folder)
    config = compose([*SMALL, f"tracking.directory={tmp_path / 'mlruns'}"])
    study = open_study(config)
    found = list(read_all(config.directory, study.plan.all_by_key).values())
    with Projection(config, study.plan, class_names(study.cells)) as projection:
        projection.project(found[0])
        with locked(tmp_path / "mlruns" / "mlflow.db", seconds=7):
            projection.project(found[1])
        assert not projection.behind
    shown = [(result.key, "FINISHED") for result in found[:2]]
    assert sorted(Workplace.runs_in(tmp_path / "mlruns" / "mlflow.db")) == sorted(shown)


@contextmanager
def locked(database: Path, seconds: float) -> Iterator[None]:
    """Lock an sqlite database from another process, for some seconds at most."""
    code = (
        "import sqlite3, sys, time; connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('begin exclusive'); print('locked', flush=True); time.sleep(float(sys.argv[2]))"
    )
    words = [sys.executable, "-c", code, str(database), str(seconds)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        try:
            yield
        finally:
            holder.kill()
