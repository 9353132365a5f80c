"""The projection: what MLflow shows of a trial is what its result says, once, however often it is shown."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from study.cells.prepared import class_names
from study.config.composition import validate
from study.config.values import dump
from study.seeds import key_of
from study.tracking.mirror import Projection
from study.tracking.slug import metric_name
from study.trials.record import Result
from tests.scenes import Scene, scene


def projection_of(study: Scene, folder: Path) -> Projection:
    values = dump(study.config)
    values["tracking"]["directory"] = str(folder / "mlruns")
    return Projection(validate(values), study.plan, class_names(study.cells))


def dotted(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        found |= dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": str(value)}
    return found


def shown(client: MlflowClient, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """Every metric of a run with its history."""
    names = client.get_run(run_id).data.metrics
    return {name: [(one.step, one.value) for one in client.get_metric_history(run_id, name)] for name in names}


def expected(result: Result) -> dict[str, list[tuple[int, float]]]:
    curves = {f"curve/{name}": list(enumerate(values, start=1)) for name, values in result.curves.items()}
    probes = {f"schedule/{name}": value for name, value in result.probes.items() if isinstance(value, int | float)}
    single = {metric_name(name): value for name, value in result.metrics.items()} | probes
    return curves | {name: [(0, float(value))] for name, value in single.items()}


def test_a_run_shows_what_its_result_says_once(tmp_path: Path) -> None:
    study = scene(replicates=2)
    results = [
        replace(result, curves={"train_loss": [3.0, 2.0, 1.5]}, probes={**result.probes, "steps": 12, "kl_weight": 0.5})
        for result in list(study.results.values())[:3]
    ]
    for _ in range(2):  # the second time nothing changes
        with projection_of(study, tmp_path) as projection:
            for result in results:
                projection.project(result)
        assert projection.behind == ""
    client = projection.client
    runs = client.search_runs([projection.experiment], "tags.kind = 'trial'")
    assert sorted(run.data.tags["trial_key"] for run in runs) == sorted(result.key for result in results)
    by_key = {run.data.tags["trial_key"]: run for run in runs}
    for result in results:
        run, planned = by_key[result.key], study.plan.by_key[result.key]
        assert run.info.status == "FINISHED"
        assert run.data.params == dotted(result.settings) | {name: str(level) for name, level in planned.levels.items()}
        assert shown(client, run.info.run_id) == expected(result)
        tags = {
            name: run.data.tags[name] for name in ("kind", "seed", "fold", "replicate", "config_hash", "data_digest")
        }
        where = planned.replicate
        assert tags == {
            "kind": "trial",
            "seed": str(where.seed),
            "fold": str(where.fold),
            "replicate": str(where.index),
            "config_hash": key_of(dump(planned.settings))[:16],
            "data_digest": result.digest,
        }
        assert run.data.tags["mlflow.parentRunId"] == projection.parent
        (data,) = run.inputs.dataset_inputs
        assert data.dataset.name == f"{study.config.data.name}/{result.query}"
        check_confusion(client, run.info.run_id, result, tmp_path / result.key)
    parent = client.get_run(projection.parent)
    assert parent.info.status == "FAILED", "some trials of the study have no result"


def check_confusion(client: MlflowClient, run_id: str, result: Result, folder: Path) -> None:
    folder.mkdir()
    names = {one.path for one in client.list_artifacts(run_id)}
    assert names == {"confusion.html", *(f"confusion_{part}.csv" for part in result.confusion)}
    for part, matrix in result.confusion.items():
        with Path(client.download_artifacts(run_id, f"confusion_{part}.csv", str(folder))).open() as file:
            rows = list(csv.reader(file))
        assert rows[0][1:] == list(result.classes)
        assert [[int(value) for value in row[1:]] for row in rows[1:]] == matrix


def test_a_trial_that_failed_and_then_succeeded_is_finished_without_a_reason(tmp_path: Path) -> None:
    study = scene(replicates=2)
    result = next(iter(study.results.values()))
    with projection_of(study, tmp_path) as projection:
        projection.project_failure(result.key, "the training loss is nan")
    (run,) = projection.client.search_runs([projection.experiment], "tags.kind = 'trial'")
    assert (run.info.status, run.data.tags["reason"]) == ("FAILED", "the training loss is nan")
    with projection_of(study, tmp_path) as projection:
        projection.project(result)
    (run,) = projection.client.search_runs([projection.experiment], "tags.kind = 'trial'")
    assert run.info.status == "FINISHED"
    assert "reason" not in run.data.tags
