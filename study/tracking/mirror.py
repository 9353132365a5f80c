"""Results on disk, projected into MLflow. One mirror per study.

One experiment per study, one parent run, one child run per trial. Only the driver writes. A projection can be made
again at any time: what is FINISHED there is left alone, so there is at most one FINISHED run per trial key, ever.
Nothing waits for MLflow: what it refuses, because its server is gone or its database locked, is shown later.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, ViewType

from study.config import StudyConfig, Tracking, dump, written
from study.plan import Plan, PlannedTrial
from study.seeds import key_of
from study.tracking.matrices import matrices_page
from study.tracking.queue import Queue
from study.tracking.slug import metric_name, refuse_collisions, slug
from study.tracking.store import PARAM_LIMIT, open_store, refusals, uri_of
from study.tracking.values import flat, tags_of
from study.trials import Result
from study.versions import versions

BATCH = 1000
# Share of the query cells that a training calls what all together do, and of those whose label is of high trust.
AGREEMENT, TRUSTED = "query/agreement", "query/trusted_share"
# MLflow's pages would ask what kind of experiment this is; the note stands above the table of runs.
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": (
        "Trials alone: `tags.kind = 'trial'`. Why they differ: report.html in the run with `tags.kind = 'study'`."
    ),
}


class Projection:
    """An MLflow experiment as the mirror of one study.

    Attributes
    ----------
    name
        Of the study, and of its experiment.
    uri
        Of the store.
    queue
        What is still to be shown.
    parent
        Run of the study, above those of its trials.
    """

    def __init__(self, config: StudyConfig, plan: Plan, classes: Sequence[str]) -> None:
        """Open (or make) the experiment and the parent run.

        Parameters
        ----------
        config
            The study; it is shown whole.
        plan
            Its plan.
        classes
            Names of all classes of its reference and queries.

        Raises
        ------
        InputError
            If the tracking store cannot be used, or two classes get the same name there.
        """
        self.name, self.uri, self.queue = config.name, uri_of(config.tracking), Queue(config.directory)
        self.config, self.plan, self.classes = config, plan, classes
        refuse_collisions(classes)
        with refusals(config.tracking):
            self.client = open_store(config.tracking)
            self.experiment = self._experiment(config.tracking)
            self.runs = self._known_runs()
            self.finished = {key for key, run in self.runs.items() if run.info.status == "FINISHED"}
            self.parent = self._parent()

    @property
    def behind(self) -> str:
        """Why MLflow does not show all of it, and how much is missing; empty if nothing is."""
        return self.queue.behind

    def _experiment(self, tracking: Tracking) -> str:
        found = self.client.get_experiment_by_name(self.name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        artifacts = tracking.directory.absolute() / "artifacts" / self.name
        location = None if tracking.uri else artifacts.as_uri()
        return str(self.client.create_experiment(self.name, artifact_location=location, tags=EXPERIMENT_TAGS))

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
        tags = {"study": self.name, "kind": "study"}
        return str(self.client.create_run(self.experiment, tags=tags, run_name=self.name).info.run_id)

    def __enter__(self) -> Projection:
        """Mark the study as running, with its configuration and design as artifacts."""
        self.queue.show(self._begin)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Show what is still owed; end the parent run, and every run that a kill left open."""
        self.queue.owed.append(partial(self._end, kind is None))
        self.queue.finish()

    def _begin(self) -> None:
        self.client.set_terminated(self.parent, "RUNNING")
        for name, value in versions().items():
            self.client.set_tag(self.parent, f"version.{name}", value, synchronous=True)
        self.client.log_dict(self.parent, dump(self.config), "config.json")
        self._design()
        self.client.log_dict(self.parent, {slug(name): name for name in sorted(self.classes)}, "classes.json")

    def _design(self) -> None:
        design = pd.DataFrame(
            [{**t.levels, "replicate": t.replicate.index, "trial_key": t.key} for t in self.plan.trials]
        )
        self.client.log_text(self.parent, design.to_csv(index=False), "design.csv")

    def _end(self, well: bool) -> None:
        for key, run in self.runs.items():
            if run.info.status == "RUNNING" and key not in self.finished:
                self.client.set_terminated(run.info.run_id, "KILLED")
                self.runs[key] = self.client.get_run(run.info.run_id)
        complete = well and self.plan.all_by_key.keys() <= self.finished
        self.client.set_terminated(self.parent, "FINISHED" if complete else "FAILED")

    def extend(self, plan: Plan) -> None:
        """Take the plan of a search that has gone on."""
        self.plan = plan
        self.queue.show(self._design)

    def attach(self, paths: Sequence[Path]) -> None:
        """Keep files (tables, the report) as artifacts of the parent run."""
        for path in paths:
            self.queue.show(partial(self.client.log_artifact, self.parent, str(path)))

    def mark_collapsed(self, keys: Iterable[str]) -> None:
        """Tag the trials that collapsed, so that they are found: `tags.collapsed = 'true'`."""
        for key in keys:
            self.queue.show(partial(self._tag, key, "collapsed", "true"))

    def _tag(self, key: str, name: str, value: str) -> None:
        self.client.set_tag(self.runs[key].info.run_id, name, value, synchronous=True)

    def project_labels(self, agreement: Mapping[str, Mapping[str, float]], trusted: Mapping[str, float]) -> None:
        """Show how far the labels of queries are to be trusted, at the study and at each trial that has all of one.

        Parameters
        ----------
        agreement
            Of each query, by trial key, the share of its cells that a trial calls what all together do.
        trusted
            Of each query the share of its cells whose label is of high trust.
        """
        self.queue.show(partial(self._project_labels, agreement, trusted))

    def _project_labels(self, agreement: Mapping[str, Mapping[str, float]], trusted: Mapping[str, float]) -> None:
        when = int(time.time() * 1000)
        for query, by_key in agreement.items():
            shown = {AGREEMENT: sum(by_key.values()) / len(by_key), TRUSTED: trusted[query]}
            metrics = [Metric(f"{name}/{slug(query)}", value, when, 0) for name, value in shown.items()]
            self.client.log_batch(self.parent, metrics=metrics, synchronous=True)
            for key, own in by_key.items():
                mine = [Metric(AGREEMENT, own, when, 0), Metric(TRUSTED, trusted[query], when, 0)]
                self.client.log_batch(self.runs[key].info.run_id, metrics=mine, synchronous=True)

    def project(self, result: Result) -> None:
        """Show one finished trial; nothing happens if it is shown already."""
        self.queue.show(partial(self._project, self.plan.all_by_key[result.key], result))

    def project_failure(self, key: str, reason: str) -> None:
        """Show a trial that failed, with the reason."""
        self.queue.show(partial(self._project_failure, self.plan.all_by_key[key], reason))

    def _project(self, planned: PlannedTrial, result: Result) -> None:
        when = int(result.finished * 1000)
        run_id = self._open(planned, when - int(result.seconds * 1000))
        if run_id is None:
            return
        # Seed and fold are tags, so that what MLflow draws by itself are settings and data.
        params = flat(result.settings) | planned.levels
        metrics = [Metric(metric_name(name), value, when, 0) for name, value in result.metrics.items()]
        probes = {name: value for name, value in result.probes.items() if isinstance(value, int | float)}
        metrics += [Metric(f"schedule/{name}", float(value), when, 0) for name, value in probes.items()]
        metrics += [
            Metric(f"curve/{name}", value, when, epoch)
            for name, values in result.curves.items()
            for epoch, value in enumerate(values, start=1)
        ]
        shown = [Param(name, written(value)[:PARAM_LIMIT]) for name, value in params.items()]
        tags = tags_of(result)
        first = BATCH - len(shown) - len(tags)
        # Else the environment may have it written later, and nobody would hear what was refused.
        self.client.log_batch(run_id, metrics[:first], shown, tags, synchronous=True)
        for start in range(first, len(metrics), BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + BATCH], synchronous=True)
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
        self.finished.add(result.key)

    def _project_failure(self, planned: PlannedTrial, reason: str) -> None:
        run_id = self._open(planned)
        if run_id is not None:
            self.client.set_tag(run_id, "reason", reason[:PARAM_LIMIT], synchronous=True)
            self.client.set_terminated(run_id, "FAILED")
            self.runs[planned.key] = self.client.get_run(run_id)

    def _open(self, planned: PlannedTrial, began: int | None = None) -> str | None:
        """Return the run of a trial to write to: new, or what a kill or failure left; None if it is finished."""
        if planned.key in self.finished:
            return None
        known = self.runs.get(planned.key)
        if known is not None:
            return str(known.info.run_id)
        replicate = planned.replicate
        kind = self._kind(planned.key)
        tags = {
            "study": self.name,
            f"{kind}_key": planned.key,
            "kind": kind,
            "config_hash": key_of(dump(planned.settings))[:16],
            "seed": str(replicate.seed),
            "fold": str(replicate.fold),
            "replicate": str(replicate.index),
            "mlflow.parentRunId": self.parent,
        }
        name = ", ".join(f"{name.split('.')[-1]}={written(level)}" for name, level in planned.levels.items())
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
