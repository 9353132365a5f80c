"""The thread's own script, with plain scvi-tools, in four ways: each fault is named in its run and in no other."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scvi
import torch

from study.cells.sources import pbmc68k
from tests.system.conftest import Workplace

DATASETS = {
    "1": "ref",
    "2": "ref",
    "3": "ref",
    "4": "query1",
    "5": "query1",
    "6": "query2",
    "7": "query2",
    "8": "query3",
}


def cells_of(query: str, overlap: bool) -> anndata.AnnData:
    """The reference with one query; with an overlap, some reference cells are in that too."""
    source = pbmc68k()
    kept = source.obs["bulk_labels"].isin(["Dendritic", "CD14+ Monocyte", "CD19+ B"]).to_numpy()
    dataset = source.obs["well"].astype(str).map(DATASETS)
    obs = pd.DataFrame({"ds_ID": dataset, "SORT": source.obs["bulk_labels"].astype(str)})
    both = anndata.AnnData(source.matrix.copy(), obs=obs, var=pd.DataFrame(index=source.genes))
    both.layers["counts"] = both.X.copy()
    both = both[kept & dataset.isin(["ref", query]).to_numpy()].copy()
    if overlap:
        again = both[both.obs["ds_ID"] == "ref"][:30].copy()
        again.obs["ds_ID"] = query
        again.obs_names = [f"{name}-again" for name in again.obs_names]
        both = anndata.concat([both, again], merge="same")
    return both


def the_thread(folder: Path, query: str, *, aliased: bool = False, twice: bool = False, overlap: bool = False) -> None:
    """The script as it was posted, but for what the arguments mend or spoil."""
    folder.mkdir()
    cells_of(query, overlap).write_h5ad(folder / "tau.h5ad")
    scvi.settings.seed = 0
    adata = anndata.read_h5ad(folder / "tau.h5ad")
    adata.X = adata.layers["counts"] if aliased else adata.layers["counts"].copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    scvi.model.SCVI.setup_anndata(adata, layer="counts", batch_key="ds_ID")
    vae = scvi.model.SCVI(adata, n_layers=2, n_latent=30, n_hidden=16)
    quiet = {"enable_progress_bar": False, "accelerator": "cpu"}
    for epochs in (6, 6) if twice else (12,):
        vae.train(max_epochs=epochs, **quiet)
        adata.obsm["X_scVI"] = vae.get_latent_representation()
    vae.save(str(folder / "tau_reference_model"))
    adata.obs = adata.obs.astype(str)
    adata.obs["celltype_scanvi"] = "Unknown"
    mask = adata.obs["ds_ID"] == "ref"
    adata.obs.loc[mask, "celltype_scanvi"] = adata.obs["SORT"][mask].to_numpy()
    lvae = scvi.model.SCANVI.from_scvi_model(
        vae, adata=adata, unlabeled_category="Unknown", labels_key="celltype_scanvi", linear_classifier=True,
        var_activation=torch.nn.functional.softplus,
    )  # fmt: skip
    lvae.train(max_epochs=6, n_samples_per_label=50, **quiet)
    lvae.save(str(folder / "tau_tune_model"))
    lvae.predict(adata, soft=True).to_csv(folder / "soft_pred.csv")
    adata.write_h5ad(folder / "adata_lvae.h5ad")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    root = tmp_path_factory.mktemp("thread")
    the_thread(root / "posted", "query1", aliased=True)
    the_thread(root / "right", "query2")
    the_thread(root / "twice", "query3", twice=True)
    the_thread(root / "overlapping", "query1", overlap=True)
    return root


NAMES = ("posted", "right", "twice", "overlapping")


def precision_as_in_the_thread(folder: Path) -> pd.Series:
    """The thread's own code, from soft_pred.csv to the diagonal of its confusion matrix."""
    data = pd.read_csv(folder / "soft_pred.csv")
    numeric = data.select_dtypes(include="number").columns
    data["max_column"] = data[numeric].idxmax(axis=1)
    obs = anndata.read_h5ad(folder / "adata_lvae.h5ad").obs
    obs["max_column"] = data["max_column"].to_numpy()
    ref = obs[obs["ds_ID"].isin(["ref"])]
    matrix = pd.crosstab(ref["max_column"], ref["SORT"])
    matrix /= matrix.sum(axis=1).to_numpy().reshape(-1, 1)
    return pd.Series({name: matrix.loc[name, name] for name in matrix.index})


def test_each_fault_is_named_in_its_run_and_in_no_other(runs: Path, workplace: Workplace) -> None:
    models = [str(runs / name / "tau_tune_model") for name in NAMES]
    files = ",".join(str(runs / name / "tau.h5ad") for name in NAMES)
    words = [*models, "data=forum", f"data.path=[{files}]"]
    found = json.loads(workplace.call("diagnose", *words, "--json").stdout)
    kinds = {name: {one["kind"] for one in found["findings"] if one["run"] == name} for name in NAMES}
    for kind, where in {
        "counts": {"posted"},
        "other cells": set(),
        "fewer steps": set(),
        "trained without dropout": {"twice"},
        "cells in two roles": {"overlapping"},
        "training cells": set(NAMES),
        "sampling of labels": set(NAMES),
    }.items():
        assert {name for name in NAMES if kind in kinds[name]} == where, kind
    said = {one["run"]: one["found"] for one in found["findings"] if one["level"] == "wrong"}
    assert "12 of 24 usual optimiser steps" in said["twice"] and "30 of the 144 query cells" in said["overlapping"]
    assert set(said) == {"twice", "overlapping"}, "that a file beside it was spoilt does not prove what was trained on"
    numbers = pd.DataFrame(found["numbers"])
    for name in NAMES:
        mine = numbers[(numbers["run"] == name) & (numbers["part"] == "all labelled reference cells")]
        expected = precision_as_in_the_thread(runs / name)
        assert mine.set_index("class")["precision"][expected.index].tolist() == (100 * expected).tolist()
    parts = numbers[numbers["run"] == "right"].groupby("part")["cells"].sum()
    assert parts["all labelled reference cells"] == parts.drop("all labelled reference cells").sum() == 174
    assert any("cannot be told apart" in one or "cannot tell" in one for one in found["together"])
    page = (workplace.folder / "diagnosis.html").read_text()
    assert "12 of 24 usual optimiser steps" in page and "<script" not in page and "http" not in page.split("<body>")[1]
    # What it proposes is a study that can be planned.
    (workplace.folder / "search_spaces" / "diagnosed.yaml").write_text(found["next"]["space"])
    command = found["next"]["command"]
    assert command.startswith("scanvi-study plan data=forum")
    three = re.sub(r",[^,\]]*overlapping[^,\]]*", "", command)  # its query is the first run's once more
    planned = json.loads(workplace.call(*three.replace("'", "").split()[1:], "--json").stdout)
    assert planned["trials"] == found["next"]["trainings"]


def test_a_model_that_is_asked_says_what_it_had_written(runs: Path, workplace: Workplace) -> None:
    words = ["diagnose", str(runs / "right" / "tau_tune_model")]
    data = ["data=forum", f"data.path={runs / 'right' / 'tau.h5ad'}"]
    written = json.loads(workplace.call(*words, *data, "--json").stdout)
    asked = json.loads(workplace.call(*words, *data, "--predict", "--json").stdout)
    assert asked["numbers"] == written["numbers"] and not written["together"]
    figures = [f"{name}={value:.2f}" for name, value in precision_as_in_the_thread(runs / "right").items()]
    reported = [word for figure in figures for word in ("--reported", figure)]
    found = json.loads(workplace.call(*words, *data, *reported, "--json").stdout)["reported"]
    assert "The reported figures are the precision of tau_tune_model on all labelled reference cells." in found
    alone = json.loads(workplace.call(*words, "--json").stdout)
    assert pd.DataFrame(alone["numbers"])["precision"].equals(pd.DataFrame(written["numbers"])["precision"])


def test_a_table_of_runs_and_an_experiment_are_compared(finished: Workplace, tmp_path: Path) -> None:
    table = pd.DataFrame({"query": ["a", "a", "b", "b"] * 3, "seed": range(12), "accuracy": [0.9, 0.92, 0.5, 0.52] * 3})
    table.to_csv(tmp_path / "runs.csv", index=False)
    page = str(tmp_path / "page.html")
    found = json.loads(finished.call("diagnose", str(tmp_path / "runs.csv"), "--json", "--page", page).stdout)
    assert found["together"][0].startswith("query: a real effect on accuracy")
    found = json.loads(finished.call("diagnose", "mlflow:pbmc68k-tiny", "--json", "--page", page).stdout)
    causes = {one["cause"] for one in found["causes"]}
    assert len(found["runs"]) == 16 and any("n_samples_per_label" in cause for cause in causes)
    assert not any(np.isnan(one["p"]) for one in found["causes"] if one["p"] is not None)
