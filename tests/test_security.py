"""What docs/security.md promises."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pytest
import torch

from study import files
from study.config.composition import compose, load
from study.errors import InputError
from study.trials.store import read_predictions, read_state, write_state

SECRET = "hunter2-not-to-be-seen"


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_configuration_makes_no_objects(tmp_path: Path) -> None:
    made = tmp_path / "made"
    with pytest.raises(InputError, match="_target_"):
        compose(["+data._target_=os.mkdir", f"+data.path={made}"])
    tagged = tmp_path / "best.yaml"
    tagged.write_text(f"!!python/object/apply:os.mkdir ['{made}']")
    with pytest.raises(InputError, match=r"best\.yaml"):
        load(tagged)
    assert not made.exists()


def test_weights_that_hold_more_than_weights_are_not_read(tmp_path: Path) -> None:
    made = tmp_path / "made"
    write_state(tmp_path, "stage", 3, {"weight": torch.ones(2)})
    (path,) = (one for one in tmp_path.rglob("*") if one.is_file() and b"weight" in one.read_bytes())
    whole = path.read_bytes()
    assert read_state(tmp_path, "stage", 3)["weight"].tolist() == [1, 1]
    # Whatever lies there: plainly pickled, or in the form of torch.save.
    for content in (pickle.dumps(Trap(made)), saved(Trap(made), tmp_path)):
        for file in path.parent.iterdir():
            text = file.read_bytes().replace(files.sha256(whole).encode(), files.sha256(content).encode())
            file.write_bytes(content if file == path else text)
        with pytest.raises(Exception, match=r"(?i)weights|damaged|checksum|broken"):
            read_state(tmp_path, "stage", 3)
        assert not made.exists()


def saved(thing: object, folder: Path) -> bytes:
    torch.save(thing, folder / "saved.pt")
    return (folder / "saved.pt").read_bytes()


def test_arrays_that_hold_objects_are_not_read(tmp_path: Path) -> None:
    made = tmp_path / "made"
    path = tmp_path / "trials" / "key.npz"
    path.parent.mkdir()
    np.savez(path, probabilities=np.array([Trap(made)], dtype=object))
    with pytest.raises(Exception, match=r"(?i)pickle|damaged|checksum|no such file|not found"):
        read_predictions(tmp_path, "key")
    assert not made.exists()


@pytest.mark.parametrize(
    "uri",
    [f"http://me:{SECRET}@mlflow.lab:5000", f"postgresql://me:{SECRET}@db/mlflow", f"https://{SECRET}@mlflow.lab"],
)
def test_a_password_in_a_tracking_uri_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(InputError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        compose([f"tracking.uri='{uri}'"])
    assert SECRET not in str(refused.value)


def test_nothing_is_reported_over_the_network() -> None:
    code = (
        "import study, study.sweep.tune, study.tracking.mirror, json\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\n"
        "from ray._common.usage.usage_lib import usage_stats_enabled\n"
        "print(json.dumps([is_telemetry_disabled(), usage_stats_enabled()]))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(said.stdout) == [True, False]


def listening(process: psutil.Process) -> set[str]:
    """Addresses that a process and those it started listen on."""
    found = set()
    for one in (process, *process.children(recursive=True)):
        found |= {link.laddr.ip for link in one.net_connections("inet") if link.status == psutil.CONN_LISTEN}
    return found


LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_ray_listens_on_this_machine_alone(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from study import sweep\n"
        "from study.config import compose\n"
        "with sweep.cluster(compose().resources):\n"
        "    print('up', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        found = listening(psutil.Process(running.pid))
        running.communicate("")
    assert found
    assert found <= LOOPBACK


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[psutil.Process, str]]:
    """`scanvi-study ui` on a database of MLflow."""
    folder = tmp_path / "mlruns"
    folder.mkdir()
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").create_experiment("study")
    command = [sys.executable, "-m", "study", "ui", f"tracking.directory={folder}", "tracking.port=5987"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as running:
        process = psutil.Process(running.pid)
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen("http://127.0.0.1:5987/health", timeout=5).read()
                    break
                except OSError:
                    time.sleep(0.5)
            yield process, "http://127.0.0.1:5987"
        finally:
            for one in (*process.children(recursive=True), process):
                one.terminate()


def test_mlflow_is_for_this_machine_and_its_own_pages(server: tuple[psutil.Process, str]) -> None:
    process, address = server
    assert listening(process) == {"127.0.0.1"}
    search = f"{address}/api/2.0/mlflow/experiments/search"
    body = json.dumps({"max_results": 5}).encode()
    plain = urllib.request.Request(search, body, {"Content-Type": "application/json"})
    assert "study" in urllib.request.urlopen(plain).read().decode()
    for foreign in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        request = urllib.request.Request(search, body, {"Content-Type": "application/json", **foreign})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == 403
