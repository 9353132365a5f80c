"""What we rely on of Ray beyond its public interface; `tests/test_security.py` looks at what a sweep listens on."""

import inspect
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import psutil
import pytest
import ray
from ray._private import accelerators, ray_constants, services, utils
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial
from ray.tune.experimental import output
from ray.tune.utils import callback

from study.config.composition import compose
from study.errors import InputError
from study.sweep.cluster import cluster


def test_ray_listens_on_loopback_where_it_makes_no_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(ray_constants.ENABLE_RAY_CLUSTER, bool), "it says so in the process that starts Ray"
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
    assert services.get_node_ip_address() == "127.0.0.1", "it is read whenever an address is chosen"
    code = "from ray._private import ray_constants; print(ray_constants.ENABLE_RAY_CLUSTER)"
    environment = {**os.environ, ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False", "the variable says it to the processes that are started"


@pytest.mark.parametrize(
    ("variable", "where", "sentence"),
    [
        ("TUNE_MAX_PENDING_TRIALS_PG", tune_controller, "how many trials Tune starts at a time is set by it"),
        ("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", callback, "Tune writes no logs of its own where it is 1"),
        ("RAY_AIR_NEW_OUTPUT", output, "Tune's old output, which can be silenced, is used where it is 0"),
        ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO_ENV_VAR", utils, "Ray leaves devices visible to stages without a GPU"),
    ],
)
def test_ray_reads_the_variables_that_are_set(variable: str, where: ModuleType, sentence: str) -> None:
    assert variable in inspect.getsource(where), sentence


def test_the_variable_for_devices_is_called_so() -> None:
    assert accelerators.RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO_ENV_VAR == "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"


def test_tune_keeps_the_text_of_an_exception_in_a_file_that_a_trial_names() -> None:
    assert isinstance(inspect.getattr_static(Trial, "error_file"), property), "`error_file` names the file"
    said = inspect.getsource(Trial.handle_error)
    assert "Failure #" in said, "its first line only says when, and is left out of a reason"
    assert "open(self.error_file" in said, "the text is written to that file"


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:{port}", "cannot be reached.*Connection refused.*'ray start --head' prints"),
        ("ray://127.0.0.1:{port}", "cannot be reached"),
        ("head.invalid:6379", "cannot be reached"),
        ("somewhere", "no Ray cluster answers.*somewhere.*resources.address=local"),
        ("127.0.0.1:70000", "cannot be reached"),
    ],
)
def test_an_address_without_a_cluster_is_refused(address: str, words: str) -> None:
    address = address.format(port=unused_port())
    resources = compose([f"resources.address='{address}'"]).resources
    with pytest.raises(InputError, match=f"resources.address={address}: {words}"), cluster(resources):
        pass


def test_ray_starts_in_a_short_folder_where_the_name_of_its_own_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("x" * 80)))
    with cluster(compose().resources):
        folder = Path(ray._private.worker.global_worker.node.get_session_dir_path())
        assert list((folder / "sockets").iterdir())
        names = [" ".join(one.cmdline()) for one in psutil.Process().children(recursive=True)]
        assert not [name for name in names if "ray::IDLE" in name], "Ray starts no workers that Tune does not use"
    assert not folder.exists()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_ray_cannot_write_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        monkeypatch.setenv("RAY_TMPDIR", file.name)
        with pytest.raises(InputError, match=f"Ray cannot be started: .*{file.name}.*TMPDIR=FOLDER"):  # noqa: SIM117
            with cluster(compose().resources):
                pass
