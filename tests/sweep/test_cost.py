"""How long a study will take: from known rates, from records, and from a few real steps."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from study.cells.sources import query_names
from study.commands.cli import app
from study.config.composition import compose
from study.config.study import StudyConfig
from study.plan.tree import Plan, plan_study
from study.sweep.cost import AROUND_A_RUN, Rates, _some, fit_rates, predict_cost
from study.training.hardware import Hardware
from study.trials.timing import Timing, write_timing
from tests.made import pbmc, study_of, timing_of

RATES = Rates({"pretraining": (0.01, 0.02), "fine-tuning": (0.03, 0.04)}, (0.05, 1e-4), (0.2, 2e-4))
SMALL = ("scvi.n_hidden=16", "scvi.n_latent=4", "query_cells=100")


def small(folder: Path, *overrides: str, **space: object) -> tuple[StudyConfig, Plan]:
    config = study_of("{scanvi.max_epochs: {levels: [2, 4]}}", f"root={folder}", *SMALL, *overrides, **space)
    return config, plan_study(config, pbmc(), query_names(config.data))


def taken(made: Plan, rates: Rates, **changes: object) -> list[Timing]:
    """Records of stages that took exactly what the rates say."""
    found = []
    for number, one in enumerate(made.stages):
        cells = pbmc()[one.condition.query].n_reference + one.condition.n_cells
        (per_epoch, per_step), n = rates.training[one.kind], len(one.trials)
        reached = tuple((epoch, epoch * (per_epoch + one.steps_per_epoch * per_step)) for epoch in one.epochs)
        evaluation = n * (rates.evaluation[0] + rates.evaluation[1] * cells)
        around = rates.around[0] + rates.around[1] * cells
        values: dict[str, object] = {
            "kind": one.kind,
            "cells": cells,
            "network": (1, 16, 128),
            "steps_per_epoch": one.steps_per_epoch,
            "trials": n,
            "training": reached[-1][1],
            "evaluation": evaluation,
            "reached": reached,
            "seconds": reached[-1][1] + evaluation + around,
            "started": float(number),
        }
        found.append(replace(timing_of(one.key), **{**values, **changes}))  # type: ignore[arg-type]
    return found


def sized(folder: Path) -> tuple[StudyConfig, Plan]:
    """Two sizes of query: else nothing tells seconds per epoch from seconds per step."""
    factors = "{query_cells: {levels: [30, all]}, scanvi.max_epochs: {levels: [2, 4]}}"
    config = study_of(factors, f"root={folder}", "scvi.n_hidden=16")
    return config, plan_study(config, pbmc(), query_names(config.data))


def test_rates_come_back_from_what_they_made(tmp_path: Path) -> None:
    _, made = sized(tmp_path)
    found = fit_rates(taken(made, RATES))
    for kind, expected in RATES.training.items():
        assert found.training[kind] == pytest.approx(expected)
    assert found.evaluation == pytest.approx(RATES.evaluation)
    assert found.around == pytest.approx(RATES.around)


def test_a_prediction_by_hand(tmp_path: Path) -> None:
    """A step takes a second and all else nothing: what is shared are the steps of the plan."""
    config, made = small(tmp_path, "resources.concurrent=1")
    steps = Rates({"pretraining": (0, 1.0), "fine-tuning": (0, 1.0)}, (0, 0), (0, 0))
    for one in taken(made, steps):
        write_timing(config.directory, one)
    found = predict_cost(config.directory, config.resources, made, pbmc(), made.stages)
    assert found is not None
    assert found.source == "stages of this study"
    assert (found.shared, found.separate) == (pytest.approx(made.steps_shared), pytest.approx(made.steps_separate))
    assert found.seconds == pytest.approx(made.steps_shared + AROUND_A_RUN)
    rest = predict_cost(config.directory, config.resources, made, pbmc(), made.stages[-1:])
    assert rest is not None
    assert rest.seconds == pytest.approx(made.stages[-1].length + AROUND_A_RUN), "only what is missing"


def test_records_of_other_studies_count_if_they_are_alike(tmp_path: Path) -> None:
    config, made = small(tmp_path)
    assert predict_cost(config.directory, config.resources, made, pbmc(), made.stages) is None, "nothing tells"
    for name, changes in {
        "older": {},
        "newer": {"ended": 500.0},
        "other engine": {"hardware": Hardware(engine="fast"), "ended": 900.0},
        "more threads": {"hardware": Hardware(threads=8), "ended": 900.0},
        "wider": {"network": (1, 512, 128), "ended": 900.0},
        "more genes": {"genes": 5000, "ended": 900.0},
    }.items():
        for one in taken(made, RATES, **changes):
            write_timing(config.root / name, one)
    found = predict_cost(config.directory, config.resources, made, pbmc(), made.stages)
    assert found is not None
    assert found.source == "stages of study 'newer'"


@pytest.mark.parametrize(
    "overrides", [(), ("scanvi.protocol=surgery", "scanvi.surgery_epochs=2"), ("resources.engine=gpu",)]
)
def test_calibrating_trains_a_few_steps_and_leaves_nothing(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    config, made = small(tmp_path, *overrides, replicates=2)
    found = predict_cost(config.directory, config.resources, made, pbmc(), made.stages, calibrating=True)
    assert found is not None
    assert 0 < found.shared < found.separate
    assert found.seconds > 0
    assert not config.directory.exists()


def test_of_many_cells_some_are_taken_with_every_label_among_them() -> None:
    whole = pbmc()["asis"]
    some = _some(whole, 150)
    assert some.counts.shape[0] <= 150 + 10 * len(whole.classes)
    assert set(some.labels) == set(whole.labels)
    assert some.n_query == len(some.truth) == some.counts.shape[0] - some.n_reference
    rows = [list(whole.names).index(name) for name in some.names]
    assert (some.counts != whole.counts[rows]).nnz == 0
    assert _some(whole, 10**6) is whole


def test_plan_says_how_long_or_how_to_find_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    words = ["plan", "--json", f"root={tmp_path}", "space.replicates=1", "scvi.n_hidden=16"]
    said = CliRunner().invoke(app, words)
    assert "'plan --calibrate' trains some steps" in said.stderr
    assert json.loads(said.stdout)["predicted_seconds"] is None
    config = compose(words[2:])
    made = plan_study(config, pbmc(), query_names(config.data))
    for one in taken(made, RATES):
        write_timing(config.directory, one)
    told = CliRunner().invoke(app, words)
    facts = json.loads(told.stdout)
    assert 0 < facts["worker_seconds_shared"] < facts["worker_seconds_separate"]
    assert facts["predicted_seconds"] > AROUND_A_RUN
    assert "from stages of this study" in told.stderr


def test_planning_without_calibrating_imports_no_scvi_tools() -> None:
    code = "import sys, study.commands.pipeline, study.sweep.cost; print('scvi' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
