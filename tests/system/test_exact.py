"""Sharing is exact: a trial of the stage tree is, bit for bit, the trial trained alone with stock scvi-tools."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
import yaml
from anndata import AnnData

from study.cells.prepared import Cells
from study.cells.sources import query_names
from study.cells.twins import prepare
from study.config.composition import compose, validate
from study.config.values import dump
from study.plan.split import Split, split_cells
from study.plan.tree import Plan, PlannedTrial, plan_study
from study.training.hardware import Hardware
from study.trials.perform import perform
from study.trials.record import Predictions
from study.trials.store import read_all, read_predictions

SMALL = ["data=pbmc68k-fine", "scvi.max_epochs=3", "scvi.n_hidden=16", "scvi.n_latent=4", "query_cells=100"]


def planned(folder: Path, factors: str, *more: str) -> tuple[Plan, dict[str, Cells]]:
    composed = dump(compose([f"root={folder}", *SMALL, *more, "space.replicates=1"]))
    config = validate({**composed, "space": {**composed["space"], "factors": yaml.safe_load(factors)}})
    queries = query_names(config.data)
    cells = prepare(config.data, queries[:2], folder / "counts")
    return plan_study(config, cells, queries), cells


def perform_all(made: Plan, cells: dict[str, Cells], folder: Path) -> dict[str, Predictions]:
    for one in made.stages:
        perform(one, cells[one.condition.query], folder, Hardware())
    return {trial.key: read_predictions(folder, trial.key) for trial in made.trials}


def stock_anndata(cells: Cells, parts: Split) -> tuple[AnnData, list[np.ndarray]]:
    known = ["Unknown" if code < 0 else cells.classes[code] for code in cells.labels]
    labels = np.array(known + ["Unknown"] * cells.n_query, dtype=object)
    labels[parts.held_out] = "Unknown"
    obs = pd.DataFrame({"batch": [cells.batches[code] for code in cells.batch], "label": labels})
    adata = AnnData(cells.counts.copy(), obs=obs.set_index(obs.index.astype(str)))
    rest = np.setdiff1d(np.arange(adata.n_obs), parts.train)
    return adata, [parts.train, np.array([], dtype=int), rest]


def stock_alone(trial: PlannedTrial, cells: Cells, parts: Split) -> pd.DataFrame:
    """Train one trial from nothing, as a user of scvi-tools writes it; nothing of our training is used."""
    settings = trial.settings
    adata, indexing = stock_anndata(cells, parts)
    common = {"batch_size": settings.scvi.batch_size, "accelerator": "cpu", "enable_progress_bar": False}
    norms = ("both", "none") if settings.scvi.norm == "batch" else ("none", "both")
    scvi.settings.seed = trial.replicate.seed
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    vae = scvi.model.SCVI(adata, n_hidden=16, n_latent=4, use_batch_norm=norms[0], use_layer_norm=norms[1])
    vae.train(max_epochs=settings.scvi.max_epochs, datasplitter_kwargs={"external_indexing": indexing}, **common)
    scvi.settings.seed = trial.replicate.seed
    lvae = scvi.model.SCANVI.from_scvi_model(
        vae, unlabeled_category="Unknown", labels_key="label", linear_classifier=settings.scanvi.linear_classifier
    )
    samples = settings.scanvi.n_samples_per_label
    lvae.train(
        max_epochs=settings.scanvi.max_epochs,
        n_samples_per_label=None if samples == "all" else samples,
        datasplitter_kwargs={"external_indexing": indexing},
        **common,
    )
    return lvae.predict(soft=True)[list(cells.classes)]


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_every_trial_of_the_tree_equals_the_trial_trained_alone(tmp_path: Path, norm: str) -> None:
    factors = (
        "{query: {levels: [asis, shallow]}, scanvi.linear_classifier: {levels: [true, false]}, "
        "scanvi.n_samples_per_label: {levels: [5, all]}, scanvi.max_epochs: {levels: [1, 4]}}"
    )
    made, cells = planned(tmp_path, factors, f"scvi.norm={norm}")
    assert len(made.stages) == 2 + 8, "two pretrainings and eight fine-tunings are shared by 16 trials"
    shared = perform_all(made, cells, tmp_path)
    torch.set_num_threads(1)
    for trial in made.trials:
        ours = cells[trial.condition.query].first(trial.condition.n_cells)
        alone = stock_alone(trial, ours, split_cells(ours, 0, made.folds, 128))
        reference = alone.to_numpy()[: ours.n_reference]
        assert np.array_equal(shared[trial.key].probabilities, reference), trial.levels
        assert np.array_equal(shared[trial.key].query_confidence, alone.to_numpy()[ours.n_reference :].max(axis=1))


def test_reference_cells_without_a_label_are_those_of_stock_scvi_tools(tmp_path: Path) -> None:
    """They train as unlabelled cells, are never held out, and count in no recall."""
    factors = "{scanvi.max_epochs: {levels: [1, 2]}}"
    made, cells = planned(tmp_path, factors, "data.unlabelled=[CD34+,Dendritic]", "~data.queries.skewed")
    ours = cells["asis"].first(100)
    assert (ours.labels < 0).sum() > 50
    assert {"CD34+", "Dendritic"}.isdisjoint(ours.classes)
    parts = split_cells(ours, 0, made.folds, 128)
    assert (ours.labels[parts.held_out] >= 0).all()
    assert set(parts.unlabelled) <= set(parts.train) - set(parts.labelled)
    shared = perform_all(made, cells, tmp_path)
    torch.set_num_threads(1)
    for trial in made.trials:
        alone = stock_alone(trial, ours, parts).to_numpy()
        assert np.array_equal(shared[trial.key].probabilities, alone[: ours.n_reference]), trial.levels
    for result in read_all(tmp_path, [trial.key for trial in made.trials]).values():
        counted = {part: int(np.sum(matrix)) for part, matrix in result.confusion.items()}
        assert (counted["heldout"], counted["train"]) == (parts.held_out.size, parts.labelled.size)
        assert result.probes["unlabelled_share"] == pytest.approx(1 - parts.labelled.size / parts.train.size)


def test_epoch_levels_of_scvi_are_snapshots_too(tmp_path: Path) -> None:
    factors = "{scvi.max_epochs: {levels: [2, 3]}, scanvi.max_epochs: {levels: [1, 2]}}"
    made, cells = planned(tmp_path, factors)
    assert [one.kind for one in made.stages] == ["pretraining", "fine-tuning", "fine-tuning"]
    shared = perform_all(made, cells, tmp_path)
    ours = cells["asis"].first(100)
    for trial in made.trials:
        alone = stock_alone(trial, ours, split_cells(ours, 0, made.folds, 128)).to_numpy()
        assert np.array_equal(shared[trial.key].probabilities, alone[: ours.n_reference]), trial.levels


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_surgery_leaves_reference_predictions_alone(tmp_path: Path, norm: str) -> None:
    """The negative control: with a linear classifier the reference cannot depend on the query."""
    factors = "{query: {levels: [asis, shallow]}}"
    made, cells = planned(tmp_path, factors, f"scvi.norm={norm}", "scanvi.protocol=surgery", "scanvi.max_epochs=2")
    assert [one.kind for one in made.stages] == ["pretraining", "fine-tuning", "surgery", "surgery"]
    asis, shallow = perform_all(made, cells, tmp_path).values()
    assert np.array_equal(asis.probabilities, shallow.probabilities)
    assert not np.array_equal(asis.query_confidence, shallow.query_confidence)


def test_held_out_cells_change_nothing(tmp_path: Path) -> None:
    """No stage sees held-out cells: with other counts in them, all other predictions stay the same, bit for bit."""
    made, cells = planned(tmp_path, "{scanvi.max_epochs: {levels: [1, 2]}}")
    ours = cells["asis"]
    parts = split_cells(ours.first(100), 0, made.folds, 128)
    counts = ours.counts.copy()
    counts.data = counts.data.copy()
    for row in parts.held_out:
        counts.data[counts.indptr[row] : counts.indptr[row + 1]] += 7
    altered = Cells(**{**vars(ours), "counts": counts})
    first = perform_all(made, cells, tmp_path / "a")
    second = perform_all(made, {"asis": altered}, tmp_path / "b")
    others = np.setdiff1d(np.arange(ours.n_reference), parts.held_out)
    for key, before in first.items():
        after = second[key]
        assert np.array_equal(before.probabilities[others], after.probabilities[others])
        assert not np.array_equal(before.probabilities[parts.held_out], after.probabilities[parts.held_out])
