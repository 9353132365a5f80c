"""The forum thread, as a configuration: its layout, its script's mistake, and its study on a small scale."""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

from study.cells.sources import pbmc68k
from study.config.composition import compose
from study.config.values import dump
from study.trials.store import read_all
from tests.system.conftest import Workplace


@pytest.fixture
def tau(tmp_path: Path) -> Path:
    """An h5ad as the thread has it: `ds_ID` with `ref`, `SORT` with three labels, raw counts in a layer."""
    cells = pbmc68k()
    kept = cells.obs["bulk_labels"].isin(["Dendritic", "CD14+ Monocyte", "CD19+ B"])
    adata = anndata.AnnData(cells.matrix.copy(), obs=cells.obs, var=pd.DataFrame(index=cells.genes))
    adata.layers["counts"] = adata.X.copy()
    adata = adata[kept].copy()
    names = {
        "1": "ref",
        "2": "ref",
        "3": "ref",
        "4": "query1",
        "5": "query1",
        "6": "query2",
        "7": "query2",
        "8": "query3",
    }
    adata.obs = pd.DataFrame(
        {
            "ds_ID": adata.obs["well"].astype(str).map(names),
            "SORT": adata.obs["bulk_labels"].astype(str),
        }
    )
    path = tmp_path / "tau.h5ad"
    adata.write_h5ad(path)
    return path


def test_the_threads_settings_are_a_configuration() -> None:
    config = compose(["data=forum", "data.path=tau.h5ad", "space=forum", "model=forum"])
    assert (config.scvi.n_layers, config.scvi.n_latent, config.scvi.max_epochs) == (2, 30, 400)
    assert (config.scanvi.max_epochs, config.scanvi.n_samples_per_label) == (200, 1000)
    assert dump(config.scanvi.extra) == {"var_activation": "softplus"}


def test_the_threads_study_runs(workplace: Workplace, tau: Path) -> None:
    data = ["data=forum", f"data.path={tau}", "model=forum"]
    report = json.loads(workplace.call("check", *data, "--json").stdout)
    assert report["fit"]
    space = workplace.folder / "search_spaces" / "forum.yaml"
    text = space.read_text().replace("[25, 50, 100, 200]", "[1, 2]").replace("[100, 1000, all]", "[5, all]")
    space.write_text(text.replace("replicates: 3", "replicates: 1"))
    words = [*data, "space=forum", "scvi.max_epochs=2", "scvi.n_hidden=8", "scvi.n_latent=4"]
    assert json.loads(workplace.call("plan", *words, "--json").stdout)["trials"] == 24
    facts = json.loads(workplace.call("run", *words, "--json").stdout)
    assert (facts["trained"], facts["waiting"], facts["failed"]) == (24 + 2, 0, {}), "and two yardsticks"
    table = pd.read_csv(workplace.folder / "studies" / "forum-forum" / "tables" / "trials.csv")
    assert set(table["query"]) == {"query1", "query2", "query3"}
    assert {f"train/recall/{name}" for name in ("Dendritic", "CD14+ Monocyte", "CD19+ B")} <= set(table.columns)


def test_the_threads_mistake_is_caught_by_name(workplace: Workplace, tau: Path) -> None:
    """`X = layers["counts"]` is an alias: normalising X overwrites the counts, and scVI trains on logarithms."""
    adata = anndata.read_h5ad(tau)
    adata.X = adata.layers["counts"]
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    spoilt = tau.with_name("spoilt.h5ad")
    adata.write_h5ad(spoilt)
    said = workplace.call("check", "data=forum", f"data.path={spoilt}", expect=2).stderr
    for word in (str(spoilt), "log1p", "10,000", "copy()"):
        assert word in said
    refused = workplace.call("run", "data=forum", f"data.path={spoilt}", "space=forum", expect=2)
    assert "Traceback" not in refused.stderr
    assert not list((workplace.folder / "studies").rglob("trials"))
    restored = workplace.call("check", "data=forum", f"data.path={spoilt}", "data.restore_counts=true", "--json")
    assert json.loads(restored.stdout)["fit"]


QUERIES = """
name: queries
design: factorial
factors:
  query: {levels: all}
replicates: 2
folds: 2
"""


def test_three_joint_files_give_what_one_combined_file_gives(workplace: Workplace, tau: Path) -> None:
    """The thread has three files, each with the whole reference and one query: check, run and transfer, bit for bit."""
    cells = anndata.read_h5ad(tau)
    paths = []
    for name in ("query1", "query2", "query3"):
        paths.append(tau.with_name(f"{name}.h5ad"))
        cells[cells.obs["ds_ID"].isin(["ref", name])].copy().write_h5ad(paths[-1])
    (workplace.folder / "search_spaces" / "queries.yaml").write_text(QUERIES)
    small = ["space=queries", "scvi.max_epochs=1", "scvi.n_hidden=8", "scvi.n_latent=4", "scanvi.max_epochs=1"]
    layouts = {"joint": f"data.path=[{','.join(map(str, paths))}]", "combined": f"data.path={tau}"}
    found = {}
    for name, path in layouts.items():
        data = ["data=forum", path, f"name={name}", *small]
        workplace.call("run", *data)
        workplace.call("transfer", *data, "query=query2")
        study = workplace.folder / "studies" / name
        keys = [path.stem for path in study.glob("trials/*.json")]
        results = {key: (one.metrics, one.confusion) for key, one in read_all(study, keys).items()}
        found[name] = (results, pd.read_csv(study / "transfer" / "query2" / "predictions.csv", index_col="cell"))
    words = ["data=forum", layouts["joint"], "name=joint", *small]
    workplace.call("transfer", *words, "query=query2", "--consensus", "--into", str(paths[1]))
    copy = anndata.read_h5ad(workplace.folder / "studies" / "joint" / "transfer" / "query2" / "query2.labelled.h5ad")
    assert json.loads(workplace.call("check", *data[:1], layouts["joint"], "--json").stdout)["fit"]
    (joint, called), (combined, as_combined) = found["joint"], found["combined"]
    assert len(combined) == 10, "three queries, two yardsticks, two replicates"
    assert joint == combined
    # What the trainings agree on stands beside what the final one says, and alone in a copy without one.
    labels = copy.obs.loc[called.index]
    assert called["consensus_trust"].isin(["high", "check", "none"]).all()
    for name in ("label", "trust", "second"):
        assert list(labels[f"consensus_{name}"]) == list(called[f"consensus_{name}"])
    assert np.allclose(labels["consensus_probability"], called["consensus_probability"])
    assert copy.obs["consensus_label"].notna().sum() == len(called) and "scanvi_predicted" not in copy.obs
    # Each says in which row of its own file a cell is.
    assert list(cells.obs_names[as_combined.row]) == list(as_combined.index)
    assert list(anndata.read_h5ad(paths[1]).obs_names[called.row]) == list(called.index)
    same = called.drop(columns="row").loc[as_combined.index]
    assert same.equals(as_combined.drop(columns="row"))
