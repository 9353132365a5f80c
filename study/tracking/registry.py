"""MLflow's model registry: chosen settings, with what belongs to them, as a version that is called `best`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param

from study.errors import WritingError
from study.tracking.mirror import Projection
from study.tracking.store import PARAM_LIMIT, REFUSED, cause_of
from study.tracking.values import flat

ALIAS = "best"


def register(
    projection: Projection,
    settings: Mapping[str, Any],
    metrics: Mapping[str, float],
    why: str,
    files: Mapping[str, Path],
) -> str:
    """Put chosen settings, and what belongs to them, into the model registry, and let `ALIAS` be their version.

    What is registered is a folder, not a flavour of MLflow: it holds no pickled code, and scvi-tools reads its
    models. Equal files are one version, however often they are registered.

    Parameters
    ----------
    projection
        The study, open; the model is called as it is.
    settings
        The chosen settings; they become params of a run with ``kind = 'export'``, which the version points at.
    metrics
        How they did.
    why
        Why they were chosen.
    files
        What to keep, by its path in the folder.

    Returns
    -------
    The version.

    Raises
    ------
    WritingError
        If MLflow refuses.
    """
    try:
        return _register(projection, settings, metrics, why, files)
    except REFUSED as error:
        raise WritingError(
            f"{cause_of(error, projection.config.tracking)} The settings are not registered there; best.yaml is "
            "written. The same command again registers them."
        ) from error


def _register(
    projection: Projection,
    settings: Mapping[str, Any],
    metrics: Mapping[str, float],
    why: str,
    files: Mapping[str, Path],
) -> str:
    client, name = projection.client, projection.name
    content = hashlib.sha256()
    for path, file in sorted(files.items()):
        content.update(f"{path}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    digest = content.hexdigest()
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description=f"The settings that hold up in the study {name}.")
    known = client.search_model_versions(f"name = '{name}'")
    version = next((one.version for one in known if one.tags.get("content") == digest), None)
    if version is None:
        tags = {"study": name, "kind": "export", "mlflow.parentRunId": projection.parent}
        run = client.create_run(projection.experiment, tags=tags, run_name=f"chosen settings of {name}")
        run_id = run.info.run_id
        params = [Param(key, str(value)[:PARAM_LIMIT]) for key, value in flat(settings).items()]
        now = int(time.time() * 1000)
        found = [Metric(key, value, now, 0) for key, value in metrics.items()]
        client.log_batch(run_id, params=params, metrics=found, synchronous=True)
        for path, file in files.items():
            client.log_artifact(run_id, str(file), str(Path("model", path).parent))
        client.set_terminated(run_id)
        made = client.create_model_version(
            name, f"{run.info.artifact_uri}/model", run_id, tags={"content": digest}, description=why
        )
        version = made.version
    client.set_registered_model_alias(name, ALIAS, version)
    return str(version)
