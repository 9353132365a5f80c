"""Ray itself: started on this machine, or a cluster that is there; what its nodes have.

Also all that is asked of Ray by other ways than its public interface: `tests/sweep/test_cluster.py` says what is relied
on.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray
from ray._common.utils import get_default_ray_temp_dir
from ray._private import ray_constants

from study.config import Resources
from study.errors import InputError
from study.sweep.capacity import refuse_too_large

REACH_SECONDS = 15  # to reach an address at all
WAIT = "RAY_gcs_server_port_wait_time_s"  # how often Ray tries to hear from a cluster, each time for some 40 seconds
# The longest name that a socket can have, and what of it comes after Ray's folder: session_<when>_<process>/sockets/...
SOCKET_NAME = 103 if sys.platform == "darwin" else 107
AFTER_FOLDER = 70


@contextmanager
def cluster(resources: Resources) -> Iterator[None]:
    """Start Ray on this machine, or connect to a cluster, and refuse what does not fit.

    Raises
    ------
    InputError
        If Ray cannot be started or reached, or one stage needs more than the whole cluster has.
    """
    # Ray warns of it, and we never hide devices from a stage without a GPU.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray would start a process per core in advance, but Tune uses none of them: it has an environment of its own.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    # What fails is reported by us, once, with its reason.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    with nullcontext() if ray.is_initialized() else _connected(resources.address):
        try:
            refuse_too_large(resources, nodes())
            yield
        finally:
            ray.shutdown()


@contextmanager
def _connected(address: str) -> Iterator[None]:
    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        with _folder() as folder:
            try:
                with _on_loopback():
                    ray.init(address="local", _temp_dir=str(folder), **quiet)
            except (OSError, RuntimeError) as error:
                raise InputError(
                    f"Ray cannot be started: {error}. Its folder is {folder}: where that cannot be written or is full, "
                    "name another one with TMPDIR=FOLDER."
                ) from error
            yield
        return
    _reach(address)
    try:
        with _variable(WAIT, os.environ.get(WAIT, "1")):
            ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"resources.address={address}: no Ray cluster answers ({error}). Start one with 'ray start --head', name "
            "the address that it prints, or train on this machine with resources.address=local."
        ) from error
    yield


@contextmanager
def _folder() -> Iterator[Path]:
    """Where Ray keeps its sockets and logs: where it would by itself, or a short folder if that name is too long."""
    folder = Path(get_default_ray_temp_dir())
    if len(os.fsencode(folder)) + AFTER_FOLDER <= SOCKET_NAME:
        yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as short:
            yield Path(short)


def _reach(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():  # auto, or what Ray refuses at once
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"resources.address={address}: cannot be reached ({error}). Expected the address of a Ray cluster, as "
            "'ray start --head' prints it; 'auto' finds the one that this node belongs to."
        ) from error


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a Ray that is started inside listen on 127.0.0.1 alone.

    It does so by itself on macOS and Windows, where it makes no clusters; on Linux it would listen on every network.
    The variable is for the processes that it starts, the constant for this one, which has read the variable already.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with _variable(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, "0"):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def set_up_tune(at_once: int) -> None:
    """Have Tune start so many workers at a time, and say and write nothing by itself."""
    # With a searcher Tune would otherwise start one worker at a time.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(at_once)
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")


def error_text(trial: Any) -> str:
    """Return what Tune keeps of the exception that ended a trial: a line that says when, then the text of it."""
    return Path(trial.error_file).read_text()


def nodes() -> list[dict[str, float]]:
    """What each node of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
