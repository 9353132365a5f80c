"""Several nodes, shared GPUs and a lost node: real Ray nodes on this machine, though their GPUs are only counted.

What is shown is placement, sharing and recovery, with `resources=cluster`. Stages ask for half a GPU and train on the
CPU, which a configuration refuses; so that is changed without validation.
"""

import threading
import time
from itertools import combinations
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from study.cells.twins import prepare
from study.commands.pipeline import run_study
from study.config.composition import compose, validate
from study.config.study import StudyConfig
from study.config.values import dump
from study.studies.study import open_study
from study.training.hardware import Hardware
from study.trials.perform import perform
from study.trials.store import read_predictions
from study.trials.timing import read_timings
from tests.system.conftest import Workplace
from tests.system.witness import Witness, told

FACTORS = {
    "query": {"levels": ["asis", "shallow"]},
    "scanvi.max_epochs": {"levels": [1, 3]},
}
QUICK_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
}


def study_on(folder: Path) -> StudyConfig:
    small = [
        "resources=cluster",
        "scvi.max_epochs=60",
        "scvi.n_hidden=16",
        "scvi.n_latent=4",
        "query_cells=60",
        f"root={folder / 'studies'}",
    ]
    values = dump(compose([*small, f"tracking.directory={folder / 'mlruns'}"]))
    values["space"] |= {"factors": FACTORS, "replicates": 2, "controls": []}
    made = validate(values)
    pretended = made.resources.model_copy(update={"accelerator": "cpu", "cpus": 1, "gpus": 0.5, "memory_gib": 0.5})
    return made.model_copy(update={"resources": pretended})


def test_a_cluster_shares_gpus_and_survives_a_lost_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    monkeypatch.setattr(
        "study.studies.study.prepare",
        lambda *words: {name: Witness(**vars(cells), told=str(seen)) for name, cells in prepare(*words).items()},
    )
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK_HEALTH_CHECKS}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=4, num_gpus=1)  # two halves of a GPU: two stages at once, though four CPUs
        lost = cluster.add_node(num_cpus=1, num_gpus=1)
        cluster.wait_for_nodes()
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)  # resources.address=auto finds it there

        def lose() -> None:
            while not any(one["node"] == lost.node_id for one in told(seen)):
                time.sleep(0.02)
            cluster.remove_node(lost, allow_graceful=False)

        losing = threading.Thread(target=lose, daemon=True)
        losing.start()
        config = study_on(tmp_path)
        outcome = run_study(config, lambda account: None)
    finally:
        ray.shutdown()
        cluster.shutdown()
    losing.join(timeout=10)
    assert not losing.is_alive(), "no stage was ever placed on the second node"
    assert outcome.complete
    assert outcome.trained == 8

    witnesses = told(seen)
    records = read_timings(config.directory)
    assert len(records) == 8
    assert len(witnesses) > len(records), "what ran on the lost node was trained again"
    assert not any(one["mlflow"] for one in witnesses), "MLflow belongs to the driver"
    assert {status for _, status in Workplace.runs_in(tmp_path / "mlruns" / "mlflow.db")} == {"FINISHED"}
    assert len(Workplace.runs_in(tmp_path / "mlruns" / "mlflow.db")) == 8
    assert {tuple(one["gpus"]) for one in witnesses} == {("0",)}, "each node has one GPU"  # type: ignore[arg-type]
    stayed = {one["pid"] for one in witnesses if one["node"] != lost.node_id}
    mine = [one for one in records if int(one.worker.split(":")[1]) in stayed]
    together = [(a, b) for a, b in combinations(mine, 2) if a.started < b.ended and b.started < a.ended]
    assert together, "two stages share a GPU"
    for a, b in together:
        assert not [
            c
            for c in mine
            if c not in (a, b) and c.started < min(a.ended, b.ended) and c.ended > max(a.started, b.started)
        ], "three are too many"

    alone = open_study(config)
    for stage in alone.plan.stages:
        perform(stage, alone.cells[stage.condition.query], tmp_path / "alone", Hardware())
    for key in alone.plan.all_by_key:
        here, there = (read_predictions(where, key) for where in (tmp_path / "alone", config.directory))
        assert (here.probabilities == there.probabilities).all()
        assert (here.query_confidence == there.query_confidence).all()
