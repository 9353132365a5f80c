"""What is exported is what was chosen: the script, run as it is, gives what the study and the transfer give."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import yaml
from anndata import AnnData, read_h5ad

from study.cells.prepared import Cells
from study.cells.sources import plain_queries
from study.cells.twins import prepare
from study.config.composition import compose, load, validate
from study.config.data import DataConfig
from study.config.study import StudyConfig
from study.config.values import dump
from study.plan.split import split_cells
from study.studies.choice import choice_of
from study.studies.export import _write_cells, render_script, write_choice
from study.studies.search import METRIC
from study.studies.study import largest_condition, open_study
from study.studies.transfer import _epochs, transfer_all
from study.training.hardware import Hardware
from study.trials.perform import perform
from study.trials.store import read_all, read_predictions
from tests.conftest import joint
from tests.made import some_result, study_of

DRIVER = """
import runpy, sys, anndata, numpy as np
for path in sys.argv[1:]:
    found = runpy.run_path(path)
    np.save(path + ".npy", found["soft"].to_numpy())
    if path == sys.argv[1]:  # held out by the study: of its reference, but not among what the script trains on
        model = found.get("mapped", found["lvae"])
        np.save("held.npy", model.predict(anndata.read_h5ad("held.h5ad"), soft=True).to_numpy())
"""
SMALL = ["scvi.n_hidden=16", "scvi.n_latent=4", "scanvi.n_samples_per_label=all"]


def config_of(data: DataConfig, root: Path, *overrides: str, **space: Any) -> StudyConfig:
    values = dump(compose([*SMALL, f"root={root}", "name=toy", *overrides]))
    values["space"] |= {"replicates": 1, "folds": 3, **space}
    return validate({**values, "data": dump(data)})


def cells_of(data: DataConfig, query: str, script: Path | None = None) -> AnnData:
    """Run what the script does before it trains; return the cells that it would train on."""
    queries = plain_queries(data)
    text = render_script("toy", data, study_of().settings({}), {query: queries[query]}, largest=1)
    found: dict[str, Any] = {"__file__": script}
    exec(text.partition("def all_cells")[0].replace("import scvi\n", ""), found)
    return found["adata"]


def same_cells(adata: AnnData, cells: Cells, batch: str | None) -> None:
    """The script's cells are those that the study prepared: counts, labels, batches and names, in the same order."""
    assert (cells.counts != adata.X).nnz == 0
    assert adata.var_names.tolist() == cells.genes.tolist()
    assert (
        adata.obs["label"].tolist()
        == [(*cells.classes, "Unknown")[code] for code in cells.labels] + ["Unknown"] * cells.n_query
    )
    assert cells.names.tolist() == adata.obs_names.tolist()
    if batch is not None:
        assert adata.obs[batch].tolist() == [cells.batches[code] for code in cells.batch]


def run(folder: Path, *scripts: Path) -> list[np.ndarray]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", DRIVER, *map(str, scripts)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [np.load(f"{script}.npy") for script in scripts]


def recall_of(soft: np.ndarray, truth: np.ndarray) -> float:
    """Macro recall by hand."""
    called = soft.argmax(axis=1)
    return float(np.mean([(called[truth == code] == code).mean() for code in np.unique(truth)]))


@pytest.mark.parametrize(
    ("overrides", "final", "query"),
    [
        # 41 cells are trained on, and a minibatch of one is left out: 40 of a fold and q1, then 40 with q2.
        (
            ["scvi.batch_size=13", "scvi.extra={var_activation: softplus}", "scvi.norm=layer"],
            ["budget=steps", "scanvi.n_samples_per_label=5"],
            "q2",
        ),
        # Both stages leave one out: 20 reference cells of a fold, then 20 query cells.
        (
            ["scvi.batch_size=19", "scanvi.protocol=surgery", "scanvi.surgery_epochs=2", "scvi.norm=batch"],
            ["scanvi.n_samples_per_label=5"],
            "q1",
        ),
    ],
    ids=["joint", "surgery"],
)
def test_the_script_gives_what_the_study_measured_and_what_transfer_gives(
    toy: AnnData,
    combined: Callable[..., DataConfig],
    tmp_path: Path,
    overrides: list[str],
    final: list[str],
    query: str,
) -> None:
    factors = {"query": {"levels": ["q1", "q2"]}, "scanvi.max_epochs": {"levels": [2, 3]}}
    config = config_of(combined(toy), tmp_path / "studies", "scvi.max_epochs=3", *overrides, factors=factors)
    study = open_study(config)
    for stage in study.plan.stages:
        perform(stage, study.cells[stage.condition.query], config.directory, Hardware())
    results = read_all(config.directory, study.plan.all_by_key)
    choice = choice_of(study, results)

    # As the study trained the winner on q1: the training cells of its fold. All labelled cells are drawn, because which
    # of them are drawn also depends on how many counts the h5ad has: scvi-tools looks at random ones.
    cells = study.cells["q1"]
    trial = next(one for one in study.plan.trials if one.query == "q1" and choice.levels[0] in one.point)
    parts = split_cells(cells, 0, 3, choice.settings.scvi.batch_size)
    held_out = toy.obs_names.isin(cells.names[parts.held_out])
    toy[~held_out].copy().write_h5ad(tmp_path / "fold.h5ad")
    toy[cells.names[parts.held_out]].copy().write_h5ad(tmp_path / "held.h5ad")
    data = config.data.model_copy(update={"path": tmp_path / "fold.h5ad"})
    (tmp_path / "fold.py").write_text(render_script("toy", data, choice.settings, {"q1": ["q1"]}, largest=1))

    # As `transfer` labels a query with what was exported: all cells.
    _, path = write_choice(study, results)
    best = load(path, [f"query={query}", *final])
    (folder,) = transfer_all(best, lambda text: None)
    of_query = study.cells[query]
    (tmp_path / "all.py").write_text(render_script("toy", best.data, best, {query: [query]}, largest=50))

    in_fold, on_all = run(tmp_path, tmp_path / "fold.py", tmp_path / "all.py")
    measured, soft = read_predictions(config.directory, trial.key), np.load(tmp_path / "held.npy")
    assert np.allclose(soft, measured.probabilities[parts.held_out], atol=1e-6)
    assert np.allclose(in_fold[-cells.n_query :].max(axis=1), measured.query_confidence, atol=1e-6)
    said = results[trial.key].metrics["heldout/macro_recall"]
    assert np.isclose(recall_of(soft, cells.labels[parts.held_out]), said)
    tables = pd.concat(pd.read_csv(folder / f"{part}.csv", index_col="cell") for part in ("reference", "predictions"))
    ours = tables.loc[of_query.names, list(cells.classes)].to_numpy(np.float32)
    assert np.array_equal(on_all[of_query.n_reference :], ours[of_query.n_reference :])
    assert np.allclose(on_all, ours, atol=1e-6)
    joint = {"X_scVI"} if best.scanvi.protocol == "joint" else set()  # after surgery no scVI knows all cells
    assert set(read_h5ad(folder / "transfer.h5ad").obsm) == {"X_scANVI", "X_umap"} | joint


def test_the_script_takes_names_as_the_study_does(
    toy: AnnData, combined: Callable[..., DataConfig], tmp_path: Path
) -> None:
    toy.obs["ds"] = toy.obs["ds"].replace({"q1": "Q1 "})
    toy.obs["label"] = [
        text if i % 2 == 0 and i < 30 else f" {text.lower()}" for i, text in enumerate(toy.obs["label"])
    ]
    toy.obs["run"] = ["Run 1", "run1"] * 20 + ["two"] * 20
    toy.var["ids"] = ["ENSG0.1", "ENSG0.1", *(f"ENSG{i}.{i}" for i in range(2, 20))]
    data = combined(
        toy[::-1].copy(),
        **{"batch_key": "run", "clean_names": True, "labels": {"T": ["a", "C"]}, "gene_names": "ids"},
        **{"strip_gene_version": True, "queries": {"q1": {"of": "q1"}, "q2": {"of": "q2"}}},
    )
    for name, cells in prepare(data, ["q1", "q2"], tmp_path / "p").items():
        adata = cells_of(data, name)
        same_cells(adata, cells, "run")
        assert set(adata.obs["ds"]) == {"ref", name}
    assert cells.classes == ("B", "T"), "the reference's spelling of B, though a query comes first in the file"


def scaled(cells: AnnData) -> AnnData:
    """Cells with counts in raw alone, which has more genes than X."""
    made = AnnData(cells.X * 0.3, obs=cells.obs, var=cells.var)
    made.raw = cells
    return made[:, :5].copy()


def logged(cells: AnnData) -> AnnData:
    totals = np.asarray(cells.X.sum(axis=1))
    return AnnData(sp.csr_matrix(np.log1p(cells.X.toarray() / totals * 1e4)), obs=cells.obs, var=cells.var)


def doubled(cells: AnnData) -> AnnData:
    """Cells of which some are there again as query cells, under other names."""
    again = cells[3:9].copy()
    again.obs = again.obs.assign(ds="q1").set_index(again.obs_names + "-1")
    cells.X[30:32] = 0
    return anndata.concat([again, cells])


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        (scaled, {"layer": "raw"}),
        (lambda cells: AnnData(cells.X.toarray() + 0.0004, obs=cells.obs, var=cells.var), {}),
        (logged, {"restore_counts": True}),
        (doubled, {"drop_duplicates": True, "genes": 30}),
        (lambda cells: cells, {"queries": {"both": {"of": ["q2", "q1"]}, "few": {"thin": 0.5}}, "batch_key": None}),
    ],
    ids=["raw", "rounded", "restored", "duplicates and variable genes", "two datasets"],
)
def test_the_script_reads_the_cells_of_a_study(
    many: AnnData,
    combined: Callable[..., DataConfig],
    tmp_path: Path,
    change: Callable[[AnnData], AnnData],
    keys: dict[str, Any],
) -> None:
    data = combined(change(many), **keys)
    query = next(iter(plain_queries(data)))
    same_cells(cells_of(data, query), prepare(data, [query], tmp_path / "prepared")[query], data.batch_key)


def test_the_script_reads_files_in_every_layout(
    many: AnnData, combined: Callable[..., DataConfig], tmp_path: Path
) -> None:
    whole = combined(many)
    paths = joint(many, tmp_path)
    listed = whole.model_copy(update={"path": tuple(paths.values())})
    named = whole.model_copy(update={"path": {"one": paths["q1"], "two": paths["q2"]}})
    many[:40].write_h5ad(tmp_path / "reference.h5ad")
    many[40:70, ::-1][:, 7:].write_h5ad(tmp_path / "a.h5ad")
    many[70:, 3:].write_h5ad(tmp_path / "b.h5ad")
    values = {"source": "separate", "path": None, "reference": tmp_path / "reference.h5ad", "dataset_key": "of"}
    queries = {"a": tmp_path / "a.h5ad", "b": tmp_path / "b.h5ad"}
    separate = whole.model_copy(update={**values, "query_paths": queries, "batch_key": "of"})
    for data, query in ((listed, "q2"), (named, "two"), (separate, "b")):
        cells = prepare(data, [query], tmp_path / "prepared")[query]
        same_cells(cells_of(data, query), cells, data.batch_key)


def test_cells_that_are_in_no_file_are_exported_too(tmp_path: Path) -> None:
    for name, query in (("pbmc68k", "asis"), ("simulated", "large")):
        data = compose([f"data={name}"]).data
        _write_cells(data, tmp_path / "best.h5ad")
        adata = cells_of(data, query, tmp_path / "best.py")
        same_cells(adata, prepare(data, [query], tmp_path / "prepared")[query], data.batch_key)


@pytest.mark.parametrize("budget", ["epochs", "steps"])
@pytest.mark.parametrize("protocol", ["joint", "surgery"])
def test_the_script_is_clean_python_whatever_the_settings(tmp_path: Path, budget: str, protocol: str) -> None:
    hostile = 'it\'s "quoted" \\ {{ 1 }}\n'
    extra = ["scvi.extra={var_activation: softplus, encode_covariates: true, extra_encoder_kwargs: {var_eps: 0.5}}"]
    extra += ["scanvi.linear_classifier=false", "scanvi.extra={classifier_parameters: {n_hidden: 5}}"]
    values = study_of(None, *extra).settings({"budget": budget, "scanvi.protocol": protocol})
    keys: dict[str, Any] = dict.fromkeys(("dataset_key", "labels_key", "batch_key", "layer", "path"), hostile)
    if budget == "steps":
        keys |= {"labels": {hostile: ["x"]}, "clean_names": True, "gene_names": hostile, "strip_gene_version": True}
        keys |= {"path": {hostile: "a.h5ad", "b": hostile}, "restore_counts": True, "drop_duplicates": True, "genes": 9}
    data = DataConfig.model_validate({"name": "x", "source": "combined", "reference_value": ["a", hostile], **keys})
    script = tmp_path / "best.py"
    script.write_text(render_script("toy", data, values, {hostile: [hostile]}, largest=700))
    compile(script.read_text(), "best.py", "exec")
    assert script.read_text().count(repr(hostile)) == (17 if budget == "steps" else 11)
    rules = ["--isolated", "--no-cache", "--select", "F,E,I", "--line-length", "120"]
    linted = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *rules, str(script)], capture_output=True, text=True
    )
    assert linted.returncode == 0, linted.stdout


def test_the_budget_that_won_is_exported_and_its_epochs_are_matched(
    toy: AnnData, combined: Callable[..., DataConfig], tmp_path: Path
) -> None:
    factors = {"query": {"levels": ["q1", "q2"]}, "scvi.n_latent": {"levels": [4, 5]}}
    small = ["budget=steps", "scvi.max_epochs=30", "scvi.batch_size=10", "scanvi.max_epochs=10"]
    study = open_study(config_of(combined(toy), tmp_path, *small, factors=factors))
    results = {
        one.key: some_result(key=one.key, metrics={METRIC: 0.9 if one.levels["scvi.n_latent"] == 5 else 0.5})
        for one in study.plan.trials
    }
    _, path = write_choice(study, results)
    written = yaml.safe_load(path.read_text())
    assert (written["budget"], written["chosen"]["settings"]) == ("steps", {"scvi.n_latent": 5})
    assert written["chosen"]["over"] == [{"scvi.n_latent": 4, "recall there": 0.5}]
    # 50 cells with q1, 40 with q2: 5 and 4 steps an epoch.
    assert largest_condition(study.config, study.queries, study.cells) == 50
    assert _epochs(load(path), 40, 50) == (38, 12)
    assert _epochs(load(path), 50, 50) == (30, 10)
    assert "ratio = 5 / math.ceil(" in path.with_suffix(".py").read_text()
