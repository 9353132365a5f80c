"""What is exported is what was chosen: the script, run as it is, gives what the study and the transfer give."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from anndata import AnnData, read_h5ad

from study.cells.prepared import Cells
from study.cells.twins import prepare
from study.config.composition import compose, load, validate
from study.config.data import DataConfig
from study.config.study import StudyConfig
from study.config.values import dump
from study.plan.split import split_cells
from study.studies.choice import choice_of
from study.studies.export import render_script, write_choice
from study.studies.search import METRIC
from study.studies.study import largest_condition, open_study
from study.studies.transfer import _epochs, transfer_all
from study.training.hardware import Hardware
from study.trials.perform import perform
from study.trials.store import read_all, read_predictions
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


def save(cells: Cells, rows: np.ndarray, query: str, path: Path) -> DataConfig:
    """Write some rows of prepared cells, in their order, as the joint h5ad that a script reads.

    Cells without a label are written as people write them.
    """
    is_reference = np.arange(len(cells.names)) < cells.n_reference
    names, none = np.array([*cells.classes, ""], dtype=object), cells.unlabelled
    labels = np.concatenate([names[cells.labels], np.repeat("?", cells.n_query)])
    labels[none] = np.resize(np.array(["doublet", np.nan, " ", "?"], dtype=object), none.size)
    obs = pd.DataFrame({"ds": np.where(is_reference, "ref", query), "label": labels}, index=cells.names.astype(str))
    AnnData(cells.counts[rows], obs=obs.iloc[rows]).write_h5ad(path)
    return DataConfig.model_validate(
        {
            **{"name": "joint", "source": "combined", "path": path, "dataset_key": "ds", "reference_value": "ref"},
            **{"labels_key": "label", "batch_key": "ds", "unlabelled": ["doublet", "missing", "?"] if none.size else []},
        }
    )


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
    ("overrides", "final", "query", "unlabelled"),
    [
        # 41 cells are trained on, and a minibatch of one is left out: 40 of a fold and q1, then 40 with q2.
        (
            ["scvi.batch_size=13", "scvi.extra={var_activation: softplus}", "scvi.norm=layer"],
            ["budget=steps", "scanvi.n_samples_per_label=5"],
            "q2",
            0,
        ),
        # Both stages leave one out: 20 reference cells of a fold, then 20 query cells.
        (
            ["scvi.batch_size=19", "scanvi.protocol=surgery", "scanvi.surgery_epochs=2", "scvi.norm=batch"],
            ["scanvi.n_samples_per_label=5"],
            "q1",
            0,
        ),
        (["scvi.batch_size=13"], ["scanvi.n_samples_per_label=5"], "q1", 6),
        (["scanvi.protocol=surgery", "scanvi.surgery_epochs=2"], ["scanvi.n_samples_per_label=5"], "q1", 6),
    ],
    ids=["joint", "surgery", "joint, unlabelled reference cells", "surgery, unlabelled reference cells"],
)
def test_the_script_gives_what_the_study_measured_and_what_transfer_gives(
    toy: AnnData,
    combined: Callable[..., DataConfig],
    tmp_path: Path,
    overrides: list[str],
    final: list[str],
    query: str,
    unlabelled: int,
) -> None:
    toy.obs["label"] = toy.obs["label"].where(np.arange(60) >= unlabelled, "doublet")
    changes = {"unlabelled": ["doublet"]} if unlabelled else {}
    factors = {"query": {"levels": ["q1", "q2"]}, "scanvi.max_epochs": {"levels": [2, 3]}}
    config = config_of(combined(toy, **changes), tmp_path / "studies", "scvi.max_epochs=3", *overrides, factors=factors)
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
    data = save(cells, np.setdiff1d(np.arange(50), parts.held_out), "q1", tmp_path / "fold.h5ad")
    save(cells, parts.held_out, "q1", tmp_path / "held.h5ad")
    (tmp_path / "fold.py").write_text(render_script("toy", data, choice.settings, largest=1))

    # As `transfer` labels a query with what was exported: all cells.
    _, path = write_choice(study, results)
    best = load(path, [f"query={query}", *final])
    (folder,) = transfer_all(best, lambda text: None)
    of_query = study.cells[query]
    data = save(of_query, np.arange(len(of_query.names)), query, tmp_path / "all.h5ad")
    (tmp_path / "all.py").write_text(render_script("toy", data, best, largest=50))

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
    toy.obs.iloc[:5, 1] = ["Doublet", " doublet", "DOUBLET ", " ", np.nan]
    toy.obs["run"] = ["Run 1", "run1"] * 20 + ["two"] * 20
    toy.var["ids"] = ["ENSG0.1", "ENSG0.1", *(f"ENSG{i}.{i}" for i in range(2, 20))]
    data = combined(
        toy[::-1].copy(),
        **{"batch_key": "run", "clean_names": True, "labels": {"T": ["a", "C"]}, "gene_names": "ids"},
        **{"unlabelled": ["doublet", "missing"], "strip_gene_version": True},
        **{"queries": {"q1": {"of": "q1"}, "q2": {"of": "q2"}}},
    )
    script = render_script("toy", data, study_of().settings({}), largest=1)
    found: dict[str, Any] = {}
    exec(script.partition("scvi.settings.seed")[0].replace("import scvi\n", ""), found)
    adata = found["adata"]
    for name, cells in prepare(data, ["q1", "q2"], tmp_path / "p").items():
        obs = adata[cells.names].obs
        known = np.array([*cells.classes, "Unknown"])[cells.labels]
        assert obs["label"].tolist() == [*known, *["Unknown"] * cells.n_query]
        assert sorted(cells.names[cells.unlabelled]) == [f"cell{i}" for i in range(5)]
        assert obs["run"].tolist() == [cells.batches[code] for code in cells.batch]
        assert set(obs["ds"]) == {"ref", name}
        assert adata.var_names.tolist() == cells.genes.tolist()
    assert cells.classes == ("B", "T"), "the reference's spelling of B, though a query comes first in the file"


@pytest.mark.parametrize("budget", ["epochs", "steps"])
@pytest.mark.parametrize("protocol", ["joint", "surgery"])
def test_the_script_is_clean_python_whatever_the_settings(tmp_path: Path, budget: str, protocol: str) -> None:
    hostile = 'it\'s "quoted" \\ {{ 1 }}\n'
    extra = ["scvi.extra={var_activation: softplus, encode_covariates: true, extra_encoder_kwargs: {var_eps: 0.5}}"]
    extra += ["scanvi.linear_classifier=false", "scanvi.extra={classifier_parameters: {n_hidden: 5}}"]
    values = study_of(None, *extra).settings({"budget": budget, "scanvi.protocol": protocol})
    keys: dict[str, Any] = dict.fromkeys(("dataset_key", "labels_key", "batch_key", "layer", "path"), hostile)
    if budget == "steps":
        keys |= {"unlabelled": [hostile, "missing"]}
        keys |= {"labels": {hostile: ["x"]}, "clean_names": True, "gene_names": hostile, "strip_gene_version": True}
    data = DataConfig.model_validate({"name": "x", "source": "combined", "reference_value": ["a", hostile], **keys})
    script = tmp_path / "best.py"
    script.write_text(render_script("toy", data, values, largest=700))
    compile(script.read_text(), "best.py", "exec")
    assert script.read_text().count(repr(hostile)) == (15 if budget == "steps" else 6)
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
