"""The projection: what MLflow shows of a study is what its results say, once, however often it is shown."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from study.cells.prepared import class_names
from study.config.composition import validate
from study.config.values import dump, written
from study.plan.stages import PlannedTrial
from study.seeds import key_of
from study.tracking.mirror import BATCH, Projection
from study.tracking.slug import metric_name, slug
from study.tracking.store import PARAM_LIMIT
from study.trials.record import Result
from tests.scenes import VERSIONS, Scene, labels_for, scene

CLASSES = ("B", "CD4+ T", "NK/T")
CURVES = {"train_loss": [3.0, 2.0, 1.5], "long": [float(at) for at in range(BATCH + 100)]}


@pytest.fixture(scope="module")
def small() -> Scene:
    """A study whose results have what those of a training have."""
    study = scene(classes=CLASSES, replicates=2)
    found = {
        key: replace(
            result,
            settings=_with_extra(dump(study.plan.by_key[key].settings)),
            query=study.plan.by_key[key].query,
            curves={**CURVES, "train_loss": [value + at for value in CURVES["train_loss"]]} if at < 2 else {},
            # Query cells may have a class that the reference has not.
            truth_classes=[*CLASSES, "none of them"],
            confusion={**result.confusion, "query": [*result.confusion["query"], [at, 0, 1]]},
            digest=f"{at:064x}",
            seconds=12.345 + at,
        )
        for at, (key, result) in enumerate(study.results.items())
    }
    return replace(study, results=found)


def _with_extra(settings: dict[str, Any]) -> dict[str, Any]:
    """Add what only scvi-tools knows, one level deeper than the other settings."""
    return {**settings, "scvi": {**settings["scvi"], "extra": {"encode_covariates": False}}}


def projection_of(study: Scene, folder: Path) -> Projection:
    """Open the projection of a study in the store of a folder."""
    values = dump(study.config)
    values["tracking"]["directory"] = str(folder / "mlruns")
    return Projection(validate(values), study.plan, class_names(study.cells))


def runs_of(projection: Projection, kind: str = "trial") -> dict[str, Run]:
    """Return runs of trials or of controls, as MLflow has them now."""
    runs = projection.client.search_runs([projection.experiment], f"tags.kind = '{kind}'")
    found = {run.data.tags[f"{kind}_key"]: run for run in runs}
    assert len(found) == len(runs), "one run per key"
    return found


def parent_of(projection: Projection) -> Run:
    """Return the run of the study."""
    return projection.client.get_run(projection.parent)


def text_of(client: MlflowClient, run_id: str, name: str, folder: Path) -> str:
    """Return an artifact."""
    return Path(client.download_artifacts(run_id, name, str(folder))).read_text(encoding="utf-8")


def params_of(result: Result, planned: PlannedTrial) -> dict[str, str]:
    """Every setting by its dotted name, and the factors that are none."""
    found = {name: written(level) for name, level in planned.levels.items()}

    def walk(values: dict[str, Any], prefix: str) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}.")
            else:
                found.setdefault(f"{prefix}{name}", written(value))

    walk(result.settings, "")
    return found


def history_of(result: Result) -> dict[str, list[tuple[int, float]]]:
    """What a run shall have of each metric: (step, value)."""
    curves = {f"curve/{name}": list(enumerate(values, start=1)) for name, values in result.curves.items()}
    probes = {"schedule/kl_weight": 0.01, "schedule/labelled_batches": 3}
    single = {metric_name(name): value for name, value in result.metrics.items()} | probes
    return curves | {name: [(0, float(value))] for name, value in single.items()}


def test_labels_to_trust_are_metrics_of_the_study_and_of_each_trial(small: Scene, folder: Path) -> None:
    keys = list(small.results)[:2]
    query = next(iter(small.cells))
    labels = labels_for(small.cells[query], keys)
    for _ in range(2):  # once more, as a sync does
        with projection_of(small, folder) as projection:
            for key in keys:
                projection.project(small.results[key])
            projection.project_labels({query: labels.agreement}, {query: labels.trusted_share})
    metrics = parent_of(projection).data.metrics
    assert metrics[f"query/agreement/{query}"] == 0.75
    assert metrics[f"query/trusted_share/{query}"] == pytest.approx(labels.trusted_share) != 0
    for run in runs_of(projection).values():
        assert run.data.metrics["query/agreement"] == 0.75
        assert run.data.metrics["query/trusted_share"] == pytest.approx(labels.trusted_share)
    assert projection.behind == ""


def test_a_run_shows_what_its_result_says(small: Scene, folder: Path) -> None:
    results = list(small.results.values())[:3]
    with projection_of(small, folder) as projection:
        for result in results:
            projection.project(result)
    client, runs = projection.client, runs_of(projection)
    assert runs.keys() == {result.key for result in results}
    for result in results:
        run, planned = runs[result.key], small.plan.by_key[result.key]
        assert run.data.params == params_of(result, planned)
        assert {
            "scvi.n_latent",
            "scvi.extra.encode_covariates",
            "scanvi.max_epochs",
            "query",
        } <= run.data.params.keys()
        assert "heldout/recall/CD4:2B: T" in run.data.metrics
        history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        # A store returns a history in no certain order.
        shown = {name: sorted((one.step, one.value) for one in found) for name, found in history.items()}
        assert shown == history_of(result)
        where = planned.replicate
        tags = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
        assert tags == {
            "study": small.config.name,
            "kind": "trial",
            "trial_key": result.key,
            "config_hash": key_of(dump(planned.settings))[:16],
            "seed": str(where.seed),
            "fold": str(where.fold),
            "replicate": str(where.index),
            "data_digest": result.digest,
            "seconds": f"{result.seconds:.2f}",
            **{f"version.{name}": value for name, value in VERSIONS.items()},
        }
        assert run.data.tags["mlflow.parentRunId"] == projection.parent
        assert run.info.run_name.endswith(f"max_epochs={planned.levels['scanvi.max_epochs']}, replicate={where.index}")
        ended = int(result.finished * 1000)
        assert (run.info.status, run.info.end_time) == ("FINISHED", ended)
        assert run.info.start_time == ended - int(result.seconds * 1000)
        check_data(run, small, result)
        check_confusion(client, run.info.run_id, result, folder / result.key)


def check_data(run: Run, study: Scene, result: Result) -> None:
    """The data set of a run is the query that it was trained for."""
    (used,) = run.inputs.dataset_inputs
    assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "training")]
    assert used.dataset.name == f"{study.config.data.name}/{study.plan.by_key[result.key].query}"
    assert used.dataset.digest == result.digest[:32]
    assert json.loads(used.dataset.source) == {"query": result.query, "query_cells": result.query_cells}


def check_confusion(client: MlflowClient, run_id: str, result: Result, folder: Path) -> None:
    """The artifacts of a run are its confusion matrices, with names at both sides."""
    folder.mkdir()
    names = {one.path for one in client.list_artifacts(run_id)}
    assert names == {"confusion.html", *(f"confusion_{part}.csv" for part in ("heldout", "train", "query"))}
    for part, matrix in result.confusion.items():
        table = pd.read_csv(client.download_artifacts(run_id, f"confusion_{part}.csv", str(folder)), index_col=0)
        assert table.columns.to_list() == result.classes
        assert table.index.to_list() == (result.truth_classes if part == "query" else result.classes)
        assert table.to_numpy().tolist() == matrix


def test_what_is_shown_is_left_alone(small: Scene, folder: Path) -> None:
    """A result that says something else shows that nothing is written again."""
    result = next(iter(small.results.values()))
    with projection_of(small, folder) as projection:
        projection.project(result)
        projection.project(result)
    before = runs_of(projection)[result.key].to_dictionary()
    other = replace(result, metrics={"heldout/macro_recall": 0.0}, confusion={}, curves={}, finished=2e9)
    with projection_of(small, folder) as projection:
        projection.project(other)
        projection.project_failure(result.key, "it cannot fail any more")
    assert runs_of(projection)[result.key].to_dictionary() == before
    check_confusion(projection.client, before["info"]["run_id"], result, folder / result.key)


def test_a_trial_that_failed_and_then_succeeded_is_finished_without_a_reason(small: Scene, folder: Path) -> None:
    result = next(iter(small.results.values()))
    reason = "the training loss is nan" * 1000  # more than MLflow takes
    with projection_of(small, folder) as projection:
        projection.project_failure(result.key, reason)
    assert not projection.behind
    failed = runs_of(projection)[result.key]
    assert (failed.info.status, failed.data.tags["reason"]) == ("FAILED", reason[:PARAM_LIMIT])
    assert failed.data.metrics == {}
    with projection_of(small, folder) as projection:
        projection.project(result)
    run = runs_of(projection)[result.key]
    assert (run.info.run_id, run.info.status) == (failed.info.run_id, "FINISHED")
    assert "reason" not in run.data.tags
    assert run.data.metrics.keys() == history_of(result).keys()


def test_the_run_of_a_study_says_what_it_is_and_how_it_ended(small: Scene, folder: Path) -> None:
    note = folder / "note.txt"
    note.write_text("kept")
    first, *others = small.results.values()
    with pytest.raises(KeyboardInterrupt), projection_of(small, folder) as projection:
        assert parent_of(projection).info.status == "RUNNING"
        for result in others:
            projection.project(result)
        projection.attach([note])
        raise KeyboardInterrupt
    parent = parent_of(projection)
    assert (parent.info.status, parent.info.run_name) == ("FAILED", small.config.name)
    kept = {name: text_of(projection.client, parent.info.run_id, name, folder) for name in ("note.txt", "design.csv")}
    assert kept["note.txt"] == "kept"
    rows = [{**t.levels, "replicate": t.replicate.index, "trial_key": t.key} for t in small.plan.trials]
    assert kept["design.csv"] == pd.DataFrame(rows).to_csv(index=False)
    values = {
        name: text_of(projection.client, parent.info.run_id, f"{name}.json", folder) for name in ("config", "classes")
    }
    assert json.loads(values["config"])["space"] == dump(small.config)["space"]
    assert json.loads(values["classes"]) == {slug(name): name for name in CLASSES}
    projection.client.delete_experiment(projection.experiment)
    with projection_of(small, folder) as projection:
        projection.project(first)
    assert projection.parent == parent.info.run_id, "an experiment that was deleted is taken up again"
    assert parent_of(projection).info.status == "FINISHED"
    assert runs_of(projection).keys() == small.results.keys()
    with pytest.raises(KeyboardInterrupt), projection_of(small, folder) as projection:
        raise KeyboardInterrupt
    assert parent_of(projection).info.status == "FAILED", "whole, but it did not end well"


def test_a_search_that_goes_on_shows_its_new_design(small: Scene, folder: Path) -> None:
    began = replace(small.plan, trials=small.plan.trials[:2])
    with projection_of(replace(small, plan=began), folder) as projection:
        for result in list(small.results.values())[:3]:
            if result.key not in began.by_key:
                projection.extend(small.plan)
            projection.project(result)
    assert len(runs_of(projection)) == 3
    design = text_of(projection.client, projection.parent, "design.csv", folder)
    assert [line.rpartition(",")[2] for line in design.splitlines()[1:]] == [trial.key for trial in small.plan.trials]


def test_a_control_is_a_run_of_its_own_kind_until_it_is_a_trial_of_the_table(small: Scene, folder: Path) -> None:
    first, second, *others = small.plan.trials
    control = replace(second, trial=replace(second.trial, control="repeat"))
    beside = replace(small.plan, trials=(first, *others), controls=(control,))
    with projection_of(replace(small, plan=beside), folder) as projection:
        projection.project(small.results[first.key])
        projection.project(small.results[second.key])
    assert runs_of(projection).keys() == {first.key}
    (run,) = runs_of(projection, "control").values()
    assert (run.data.tags["control_key"], run.data.tags["control"]) == (second.key, "repeat")
    assert run.info.run_name == f"control repeat, query={second.query}, replicate={second.replicate.index}"
    both = replace(small.plan, controls=(control,))
    with projection_of(replace(small, plan=both), folder) as projection:
        projection.project(small.results[second.key])
    assert runs_of(projection).keys() == {first.key, second.key}


@pytest.mark.parametrize("finished", [0, 1])
def test_of_several_runs_of_a_trial_the_finished_one_counts(small: Scene, folder: Path, finished: int) -> None:
    """The answer to `create_run` may be lost, and the run is there all the same."""
    key = small.plan.trials[0].key
    first = projection_of(small, folder)
    tags = {"kind": "trial", "trial_key": key}
    made = [first.client.create_run(first.experiment, tags=tags).info.run_id for _ in range(2)]
    first.client.set_terminated(made[finished], "FINISHED")
    assert projection_of(small, folder).runs[key].info.run_id == made[finished]
    assert runs_of(first)[key].info.run_id == made[finished]


def test_a_run_that_a_kill_left_open_is_ended_and_used_again(small: Scene, folder: Path) -> None:
    result = next(iter(small.results.values()))
    first = projection_of(small, folder)
    tags = {"kind": "trial", "trial_key": result.key}
    left = first.client.create_run(first.experiment, tags=tags).info.run_id
    with projection_of(small, folder):
        pass
    assert runs_of(first)[result.key].info.status == "KILLED"
    with projection_of(small, folder) as projection:
        projection.project(result)
    run = runs_of(projection)[result.key]
    assert (run.info.run_id, run.info.status) == (left, "FINISHED")
