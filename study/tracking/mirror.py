"""Results on disk, projected into MLflow. The only module that imports mlflow.

One experiment per study, one parent run, one child run per trial. Only the driver writes. A projection can be made
again at any time: what is FINISHED there is left alone, so there is at most one FINISHED run per trial key, ever.
Nothing waits for MLflow: what it refuses, because its server is gone or its database locked, is shown later.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag, ViewType

from study.cells import Cells
from study.config import StudyConfig, dump
from study.errors import InputError
from study.plan import Plan, PlannedTrial
from study.seeds import key_of
from study.tracking.matrices import matrices_page
from study.tracking.slug import metric_name, slug
from study.trials import Result, versions

log = logging.getLogger(__name__)
PARAM_LIMIT = 6000
BATCH = 1000
ALIAS = "best"
# MLflow's pages would ask what kind of experiment this is; the note stands above the table of runs.
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": (
        "Trials alone: `tags.kind = 'trial'`. Why they differ: report.html in the run with `tags.kind = 'study'`."
    ),
}
# What MLflow and its stores raise: a gone server, a locked or full database, artifacts that cannot be written.
REFUSED = (mlflow.exceptions.MlflowException, sqlite3.Error, OSError)
PATIENCE = (
    20.0  # seconds to wait for a locked database, as MLflow itself does, and before a refused store is tried again
)
# MLflow would try for four minutes to reach a server, and wait two for each answer.
BOUNDS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


def uri_of(config: StudyConfig) -> str:
    """Return the address of the tracking store, with absolute paths."""
    return config.tracking.uri or f"sqlite:///{config.tracking.directory.absolute() / 'mlflow.db'}"


class Projection:
    """An MLflow experiment as the mirror of one study.

    Attributes
    ----------
    owed
        What is still to be shown.
    behind
        Why that was refused; empty if nothing is owed.
    """

    def __init__(self, config: StudyConfig, plan: Plan, cells: Mapping[str, Cells]) -> None:
        """Open (or make) the experiment and the parent run.

        Raises
        ------
        InputError
            If the tracking store cannot be reached, or two classes get the same name there.
        """
        logging.getLogger("alembic").setLevel(logging.WARNING)
        # It logs tracebacks of what it raises as well.
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)
        for name, value in BOUNDS.items():
            os.environ.setdefault(name, value)
        self.owed: deque[Callable[[], None]] = deque()
        self.behind, self._again = "", 0.0
        self.config, self.plan, self.cells = config, plan, cells
        _refuse_collisions(cells)
        directory = config.tracking.directory.absolute()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self.client = MlflowClient(uri_of(config))
            self.experiment = self._experiment(directory)
            if config.tracking.uri is None:
                with closing(sqlite3.connect(directory / "mlflow.db", timeout=PATIENCE)) as database:
                    database.execute("PRAGMA journal_mode=WAL")
            self.runs = self._known_runs()
            self.parent = self._parent()
        except REFUSED as error:
            raise InputError(
                f"tracking: MLflow at {uri_of(config)} cannot be used ({_first_line(error)}). "
                "Start the server, use 'tracking=local', or end what locks the database. Results are not touched."
            ) from error

    def _experiment(self, directory: Path) -> str:
        found = self.client.get_experiment_by_name(self.config.name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        location = None if self.config.tracking.uri else (directory / "artifacts" / self.config.name).as_uri()
        return str(self.client.create_experiment(self.config.name, artifact_location=location, tags=EXPERIMENT_TAGS))

    def _known_runs(self) -> dict[str, Any]:
        """Runs of trials and of controls by key; where a lost answer left several, the finished one counts."""
        known: dict[str, Any] = {}
        for kind in ("trial", "control"):
            for run in self._search(f"tags.kind = '{kind}'"):
                key = run.data.tags[f"{kind}_key"]
                # A control that became a trial of the table gets a run as such.
                if self._kind(key) != kind:
                    continue
                first, second = known.get(key, run), run
                if second.info.status == "FINISHED":
                    first, second = second, first
                known[key] = first
                if second is not first and second.info.status != "FINISHED":
                    self.client.delete_run(second.info.run_id)
        return known

    def _kind(self, key: str) -> str:
        """A control that is a trial of the table as well is shown as that."""
        return "control" if key in self.plan.all_by_key and key not in self.plan.by_key else "trial"

    def _search(self, query: str) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self.client.search_runs([self.experiment], query, ViewType.ACTIVE_ONLY, 1000, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _parent(self) -> str:
        runs = self._search("tags.kind = 'study'")
        if runs:
            return str(runs[0].info.run_id)
        tags = {"study": self.config.name, "kind": "study"}
        return str(self.client.create_run(self.experiment, tags=tags, run_name=self.config.name).info.run_id)

    def __enter__(self) -> Projection:
        """Mark the study as running, with its configuration and design as artifacts."""
        self._show(self._begin)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Show what is still owed; end the parent run, and every run that a kill left open."""
        self.owed.append(partial(self._end, kind is None))
        self.catch_up()

    def _show(self, what: Callable[[], None]) -> None:
        """Show something now, or later if MLflow refused not long ago."""
        self.owed.append(what)
        if time.monotonic() >= self._again:
            self.catch_up()

    def catch_up(self) -> None:
        """Show what is owed, until something is refused."""
        while self.owed:
            try:
                self.owed[0]()
            except REFUSED as error:
                if not self.behind:
                    where = self.config.directory
                    log.warning("MLflow is behind (%s); results are kept in %s", _first_line(error), where)
                self.behind, self._again = _first_line(error), time.monotonic() + PATIENCE
                # The others first, next time: perhaps this alone is refused.
                self.owed.rotate(-1)
                return
            self.owed.popleft()
        self.behind = ""

    def _begin(self) -> None:
        self.client.set_terminated(self.parent, "RUNNING")
        for name, value in versions().items():
            self.client.set_tag(self.parent, f"version.{name}", value)
        self.client.log_dict(self.parent, dump(self.config), "config.json")
        self._design()
        names = sorted({name for cells in self.cells.values() for name in cells.truth_classes})
        self.client.log_dict(self.parent, {slug(name): name for name in names}, "classes.json")

    def _design(self) -> None:
        design = pd.DataFrame(
            [{**t.levels, "replicate": t.replicate.index, "trial_key": t.key} for t in self.plan.trials]
        )
        self.client.log_text(self.parent, design.to_csv(index=False), "design.csv")

    def _end(self, well: bool) -> None:
        for key, run in self.runs.items():
            if run.info.status == "RUNNING":
                self.client.set_terminated(run.info.run_id, "KILLED")
                self.runs[key] = self.client.get_run(run.info.run_id)
        finished = sum(run.info.status == "FINISHED" for key, run in self.runs.items() if key in self.plan.all_by_key)
        complete = well and finished == len(self.plan.all_by_key)
        self.client.set_terminated(self.parent, "FINISHED" if complete else "FAILED")

    def extend(self, plan: Plan) -> None:
        """Take the plan of a search that has gone on."""
        self.plan = plan
        self._show(self._design)

    def attach(self, paths: Sequence[Path]) -> None:
        """Keep files (tables, the report) as artifacts of the parent run."""
        for path in paths:
            self._show(partial(self.client.log_artifact, self.parent, str(path)))

    def project(self, result: Result) -> None:
        """Show one finished trial; nothing happens if it is shown already."""
        self._show(partial(self._project, self.plan.all_by_key[result.key], result))

    def project_failure(self, key: str, reason: str) -> None:
        """Show a trial that failed, with the reason."""
        self._show(partial(self._project_failure, self.plan.all_by_key[key], reason))

    def register(
        self, settings: Mapping[str, Any], metrics: Mapping[str, float], why: str, files: Mapping[str, Path]
    ) -> str:
        """Put chosen settings, and what belongs to them, into the model registry, and let `ALIAS` be their version.

        What is registered is a folder, not a flavour of MLflow: it holds no pickled code, and scvi-tools reads its
        models. Equal files are one version, however often they are registered.

        Parameters
        ----------
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
        InputError
            If MLflow refuses.
        """
        try:
            return self._register(settings, metrics, why, files)
        except REFUSED as error:
            raise InputError(
                f"tracking: MLflow at {uri_of(self.config)} did not register the settings ({_first_line(error)}). "
                "best.yaml is written; register it again when MLflow can be used."
            ) from error

    def _register(
        self, settings: Mapping[str, Any], metrics: Mapping[str, float], why: str, files: Mapping[str, Path]
    ) -> str:
        name = self.config.name
        content = hashlib.sha256()
        for path, file in sorted(files.items()):
            content.update(f"{path}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        digest = content.hexdigest()
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name, description=f"The settings that hold up in the study {name}.")
        known = self.client.search_model_versions(f"name = '{name}'")
        version = next((one.version for one in known if one.tags.get("content") == digest), None)
        if version is None:
            tags = {"study": name, "kind": "export", "mlflow.parentRunId": self.parent}
            run = self.client.create_run(self.experiment, tags=tags, run_name=f"chosen settings of {name}")
            run_id = run.info.run_id
            params = [Param(key, str(value)[:PARAM_LIMIT]) for key, value in _flat(settings).items()]
            now = int(time.time() * 1000)
            found = [Metric(key, value, now, 0) for key, value in metrics.items()]
            self.client.log_batch(run_id, params=params, metrics=found)
            for path, file in files.items():
                self.client.log_artifact(run_id, str(file), str(Path("model", path).parent))
            self.client.set_terminated(run_id)
            made = self.client.create_model_version(
                name, f"{run.info.artifact_uri}/model", run_id, tags={"content": digest}, description=why
            )
            version = made.version
        self.client.set_registered_model_alias(name, ALIAS, version)
        return str(version)

    def _project(self, planned: PlannedTrial, result: Result) -> None:
        when = int(result.finished * 1000)
        run_id = self._open(planned, when - int(result.seconds * 1000))
        if run_id is None:
            return
        # Seed and fold are tags, so that what MLflow draws by itself are settings and data.
        params = _flat(result.settings) | planned.levels
        metrics = [Metric(metric_name(name), value, when, 0) for name, value in result.metrics.items()]
        probes = {name: value for name, value in result.probes.items() if isinstance(value, int | float)}
        metrics += [Metric(f"schedule/{name}", float(value), when, 0) for name, value in probes.items()]
        metrics += [
            Metric(f"curve/{name}", value, when, epoch)
            for name, values in result.curves.items()
            for epoch, value in enumerate(values, start=1)
        ]
        self.client.log_batch(
            run_id, params=[Param(name, str(value)[:PARAM_LIMIT]) for name, value in params.items()], tags=_tags(result)
        )
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + BATCH])
        data = Dataset(
            name=f"{self.config.data.name}/{result.query}",
            digest=result.digest[:32],
            source_type="code",
            source=json.dumps({"query": result.query, "query_cells": result.query_cells}),
        )
        self.client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
        self._confusion(run_id, result)
        if "reason" in self.runs[result.key].data.tags:  # it failed before
            self.client.delete_tag(run_id, "reason")
        self.client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED), end_time=when)
        self.runs[result.key] = self.client.get_run(run_id)

    def _project_failure(self, planned: PlannedTrial, reason: str) -> None:
        run_id = self._open(planned)
        if run_id is not None:
            self.client.set_tag(run_id, "reason", reason[:PARAM_LIMIT])
            self.client.set_terminated(run_id, "FAILED")
            self.runs[planned.key] = self.client.get_run(run_id)

    def _open(self, planned: PlannedTrial, began: int | None = None) -> str | None:
        """Return the run of a trial to write to: new, or what a kill or failure left; None if it is finished."""
        known = self.runs.get(planned.key)
        if known is not None:
            return None if known.info.status == "FINISHED" else str(known.info.run_id)
        replicate = planned.replicate
        kind = self._kind(planned.key)
        tags = {
            "study": self.config.name,
            f"{kind}_key": planned.key,
            "kind": kind,
            "config_hash": key_of(dump(planned.settings))[:16],
            "seed": str(replicate.seed),
            "fold": str(replicate.fold),
            "replicate": str(replicate.index),
            "mlflow.parentRunId": self.parent,
        }
        name = ", ".join(f"{name.split('.')[-1]}={level}" for name, level in planned.levels.items())
        if kind == "control":
            tags["control"] = planned.control
            name = f"control {planned.control}, query={planned.condition.query}"
        name = f"{name}, replicate={replicate.index}"
        run = self.client.create_run(self.experiment, start_time=began, tags=tags, run_name=name)
        self.runs[planned.key] = run
        return str(run.info.run_id)

    def _confusion(self, run_id: str, result: Result) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for part, matrix in result.confusion.items():
                rows = result.truth_classes if part == "query" else result.classes
                frame = pd.DataFrame(matrix, index=pd.Index(rows, name="true \\ predicted"), columns=result.classes)
                frame.to_csv(Path(folder) / f"confusion_{part}.csv")
            (Path(folder) / "confusion.html").write_text(matrices_page(result), encoding="utf-8")
            self.client.log_artifacts(run_id, folder)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _refuse_collisions(cells: Mapping[str, Cells]) -> None:
    names: dict[str, str] = {}
    for name in {name for one in cells.values() for name in one.truth_classes}:
        other = names.setdefault(slug(name), name)
        if other != name:
            raise InputError(f"labels: {name!r} and {other!r} get the same name in MLflow. Rename one of them.")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _tags(result: Result) -> list[RunTag]:
    return [
        *(RunTag(f"version.{name}", value) for name, value in result.made_with.items()),
        RunTag("data_digest", result.digest),
        RunTag("seconds", f"{result.seconds:.2f}"),
    ]
