"""Ray itself: started on this machine, or a cluster that is there; what its nodes have.

Also all that is asked of Ray by other ways than its public interface: `tests/sweep/test_cluster.py` says what is relied
on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants

from study.config import Resources
from study.sweep.capacity import refuse_too_large


@contextmanager
def cluster(resources: Resources) -> Iterator[None]:
    """Start Ray on this machine, or connect to a cluster, and refuse what does not fit.

    Raises
    ------
    InputError
        If one stage needs more than the whole cluster has.
    """
    # Ray warns of it, and we never hide devices from a stage without a GPU.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # What fails is reported by us, once, with its reason.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if not ray.is_initialized():
        with _on_loopback() if resources.address == "local" else nullcontext():
            ray.init(address=resources.address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        refuse_too_large(resources, nodes())
        yield
    finally:
        ray.shutdown()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a Ray that is started inside listen on 127.0.0.1 alone.

    It does so by itself on macOS and Windows, where it makes no clusters; on Linux it would listen on every network.
    The variable is for the processes that it starts, the constant for this one, which has read the variable already.
    """
    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[name]


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
