"""A study whose reference has cells without a label: they are trained on, and are in nothing that is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from study.cells.prepared import Cells
from study.cells.twins import prepare
from study.config.composition import compose, validate
from study.config.data import DataConfig
from study.config.values import dump
from study.plan.split import split_cells
from study.report.analysis import Analysis, analyse
from study.report.finished import read_finished
from study.report.page import render_report
from study.studies.study import Study, open_study
from study.sweep.cost import _some
from study.training.hardware import Hardware
from study.trials.logistic import fit_logistic
from study.trials.perform import perform
from study.trials.record import Predictions, Result
from study.trials.store import read_predictions, write_result
from study.trials.tables import cell_frame

NONE = [f"cell{i}" for i in range(6)]
SMALL = ["scvi.max_epochs=2", "scanvi.max_epochs=2", "scvi.n_hidden=8", "scvi.n_latent=3"]
SMALL += ["scanvi.n_samples_per_label=4"]
CONTROLS = ["self", "shuffled", "surgery", "logistic"]


@pytest.fixture
def data(toy: AnnData, combined: Callable[..., DataConfig]) -> DataConfig:
    """The toy cells, of whose reference 6 are called so or not at all, and 2 of a query."""
    toy.obs["label"] = toy.obs["label"].astype(object)
    toy.obs.iloc[:6, 1] = ["doublet", "?", np.nan, "", "doublet", "?"]
    toy.obs.iloc[30:32, 1] = ["doublet", np.nan]
    return combined(toy, unlabelled=["doublet", "?", "missing"])


def finished(data: DataConfig, folder: Path) -> tuple[Study, Analysis]:
    """Train a study with its controls, and look at it."""
    values = dump(compose([*SMALL, f"root={folder}", "name=toy", "query_cells=10"]))
    values["space"] |= {"factors": {"query": {"levels": ["q1", "q2"]}}, "replicates": 2, "folds": 3}
    values["space"]["controls"] = CONTROLS
    study = open_study(validate({**values, "data": dump(data)}))
    for stage in study.plan.stages:
        perform(stage, study.cells[stage.condition.query], study.config.directory, Hardware())
    for trial in study.plan.controls:
        if trial.control == "logistic":
            write_result(study.config.directory, *fit_logistic(trial, study.cells[trial.condition.query], 3))
    return study, analyse(study, read_finished(study))


def by_hand(labels: pd.Series, called: pd.Series) -> dict[str, float]:
    """Recall of each class."""
    return {name: float((called[labels == name] == name).mean()) for name in labels.dropna().unique()}


def recalls(result: Result, part: str) -> dict[str, float]:
    """Recall of each class, as a trial has it."""
    start = f"{part}/recall/"
    return {name.removeprefix(start): value for name, value in result.metrics.items() if name.startswith(start)}


def check_trial(result: Result, found: Predictions, cells: Cells, truth: pd.Series, known: bool) -> None:
    """Compare a trial with what follows from the file."""
    names, classes = cells.names[: cells.n_reference], np.array(cells.classes)
    called = pd.Series(classes[found.probabilities.argmax(axis=1)], index=names)
    held = names[found.held_out]
    trained = np.setdiff1d(names, [*held, *names[[row for row in result.left_out if row < len(names)]]])
    assert not set(held) & set(NONE)
    labels = truth[names]
    labels[NONE] = np.nan
    for part, some in (("heldout", held), ("train", trained)):
        assert np.sum(result.confusion[part]) == labels[some].notna().sum()
        if known:
            assert recalls(result, part) == pytest.approx(by_hand(labels[some], called[some]))
    assert {name.rpartition("/")[2] for name in result.metrics if "/support/" in name} == {"A", "B", "C"}
    if known and "distinct_labelled" in result.probes:
        sizes = labels[trained].value_counts()
        assert all(drawn <= sizes[name] for name, drawn in result.probes["distinct_labelled"].items())
        assert set(result.probes["draws_per_cell"]) == {"A", "B", "C"}


def test_they_are_trained_on_and_counted_nowhere(data: DataConfig, toy: AnnData, tmp_path: Path) -> None:
    study, analysis = finished(data, tmp_path)
    found = {**analysis.results, **analysis.beside}
    assert len(found) == 2 * (2 + 1 + 1 + 3 + 1) and not analysis.failures
    truth = toy.obs["label"].where(toy.obs["label"].isin(list("ABC")))
    for key, trial in study.plan.all_by_key.items():
        cells = trial.condition.take(study.cells[trial.condition.query])
        mine = read_predictions(study.config.directory, key)
        check_trial(found[key], mine, cells, truth.copy(), known=trial.control != "shuffled")
        if trial.condition.query == "q1" and trial.condition.n_cells:
            assert np.sum(found[key].confusion["query"]) == truth[cells.names[cells.n_reference :]].notna().sum()
        if trial.control == "" and trial.condition.query == "q1":
            parts = split_cells(cells, trial.replicate.fold, 3, 128)
            share = (6 + 10) / parts.train.size
            assert found[key].probes["unlabelled_share"] == pytest.approx(share)
            table = cell_frame(found[key], mine, cells).loc[NONE]
            assert table["label"].isna().all() and (table["part"] == "train").all()
    assert analysis.flips is not None
    assert not set(analysis.flips.cells["cell"]) & set(NONE)
    rates = analysis.flips.rates
    assert rates[(rates.grouping == "all") & (rates.part == "training")]["cells"].max() <= 24
    page = render_report(study, analysis)
    assert "reference of 30 cells (6 without a label), 3 classes" in page
    classes = analysis.checks.classes.set_index("class")
    assert classes["reference cells"].to_dict() == {"(unknown)": 6, "A": 8, "B": 8, "C": 8}


def test_a_calibration_takes_them_along(data: DataConfig, tmp_path: Path) -> None:
    cells = prepare(data, ["q1"], tmp_path)["q1"]
    some = _some(cells, 12)
    assert some.unlabelled.size and np.unique(some.labels[some.labels >= 0]).tolist() == [0, 1, 2]
