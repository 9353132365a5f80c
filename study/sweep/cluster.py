"""Ray itself: started on this machine, or a cluster that is there; what its nodes have."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

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


def nodes() -> list[dict[str, float]]:
    """What each node of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
