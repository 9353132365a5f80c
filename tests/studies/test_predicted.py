"""Predictions go back into one's own object: by the line in the docs, as h5ad, and as a copy of one's own file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData, concat, read_h5ad, settings
from scvi.model import SCANVI

from study.config.composition import compose
from study.config.study import StudyConfig
from study.files import file_names
from study.studies.choice import Choice
from study.studies.export import files_to_keep
from study.studies.transfer import transfer_all

DOCS = Path(__file__).parents[2] / "docs"
SMALL = ["scvi.n_hidden=8", "scvi.n_latent=3", "scvi.max_epochs=2", "scanvi.max_epochs=2"]


def cells_of(name: str, n: int, genes: list[str], seed: int) -> AnnData:
    """Cells as a person has them: more in the file than a study needs, and barcodes that other files have too."""
    random = np.random.default_rng(seed)
    counts = sp.csr_matrix(random.poisson(3, (n, len(genes))).astype(np.float32))
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical([f"T/{'AB'[i % 2]}" for i in range(n)]),
            "dataset": [f"{name} donor {i % 3}" for i in range(n)],  # not what the study calls so
            "score": random.random(n),
            "well": pd.array([*map("well {}".format, range(n - 1)), None], dtype="string"),
            "flag": [True, False] * (n // 2) if name == "qb" else [f"note {i}" for i in range(n)],
        },
        index=[f"{i:04d}" for i in range(n)],
    )
    var = pd.DataFrame({"symbol": [gene.upper() for gene in genes], "length": range(len(genes))}, index=genes)
    made = AnnData(np.log1p(counts), obs=obs, var=var, layers={"counts": counts})
    made.raw = made.copy()
    made.obsm["X_umap"] = random.random((n, 2))
    made.obsp["distances"] = sp.random(n, n, 0.1, format="csr", random_state=seed)
    made.varm["loadings"] = random.random((len(genes), 2))
    made.uns["palette"] = {"T": "#ff0000"}
    return made


@dataclass(frozen=True)
class Done:
    """A transfer that was made: its folder, the files it read, and what it said."""

    folder: Path
    files: dict[str, Path]
    wrote: list[Path]
    said: list[str]


def transfer(config: StudyConfig, *into: Path) -> tuple[list[Path], list[str]]:
    said: list[str] = []
    return list(transfer_all(config, said.append, into=into)), said


@pytest.fixture(scope="module")
def separate(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A file for the reference, two for queries; each has genes that the others lack, in another order."""
    folder = tmp_path_factory.mktemp("separate")
    common = [f"gene{i}" for i in range(20)]
    made = {
        "reference": cells_of("reference", 40, [*common, "only reference"], 0),
        "qa": cells_of("qa", 24, ["only qa", *common[::-1]], 1),
        "qb": cells_of("qb", 10, [*common[5:], "only qb", "b too"], 2),
    }
    made["qb"].obs["scanvi_predicted"] = "mine"
    files = {name: folder / f"{name}.h5ad" for name in made}
    for name, cells in made.items():
        with settings.override(allow_write_nullable_strings=True):
            cells.write_h5ad(files[name], compression="gzip")
    config = compose(
        [
            *(*SMALL, f"root={folder}", "name=it", "data=separate", "data.layer=counts"),
            f"data.reference={files['reference']}",
            f"data.query_paths={{qa: {files['qa']}, qb: {files['qb']}}}",
            "data.queries={one: {of: qa}, both: {of: [qa, qb]}}",
        ]
    )
    wrote, said = transfer(config, files["qb"])
    return Done(folder / "it" / "transfer", files, wrote, said)


def asked_again(folder: Path, cells: AnnData) -> pd.DataFrame:
    """What the saved model says of cells with all their genes, as docs/mlflow.md asks it."""
    cells = cells.copy()
    cells.obs["batch"], cells.obs["label"] = cells.obs["scanvi_batch"], cells.obs["scanvi_label"]
    SCANVI.prepare_query_anndata(cells, str(folder / "scanvi_model"))
    return SCANVI.load(str(folder / "scanvi_model"), cells).predict(soft=True)


@pytest.mark.parametrize(("query", "names"), [("one", ["qa"]), ("both", ["qa", "qb"])])
def test_a_prediction_says_which_cell_it_is_of(separate: Done, query: str, names: list[str]) -> None:
    """The barcodes of the files are the same; what is said of a cell is what the model says of that row of its file."""
    folder = separate.folder / query
    table = pd.read_csv(folder / "predictions.csv", dtype={"cell": str})
    assert list(table) == ["cell", "dataset", "row", "T/A", "T/B", "max_value", "max_column"]
    whole = {name: read_h5ad(separate.files[name]) for name in names}
    assert list(table.dataset) == [name for name in names for _ in range(whole[name].n_obs)]
    for name, mine in whole.items():
        here = table[table.dataset == name]
        assert list(here.row) == list(range(mine.n_obs)), "in the order of the file"
        assert list(here.cell) == list(mine.obs_names)
        mine.X, mine.obs["scanvi_batch"], mine.obs["scanvi_label"] = mine.layers["counts"], name, "Unknown"
        assert np.allclose(asked_again(folder, mine), here[["T/A", "T/B"]], atol=1e-5)
    assert table["T/A"].nunique() == len(table)
    reference = pd.read_csv(folder / "reference.csv", dtype={"cell": str})
    assert list(reference.cell) == list(read_h5ad(separate.files["reference"]).obs_names)
    assert set(reference.dataset) == {"reference"}


def test_the_h5ad_is_the_query_as_its_file_has_it(separate: Done) -> None:
    made, mine = read_h5ad(separate.folder / "one" / "transfer.h5ad"), read_h5ad(separate.files["qa"])
    added = ["scanvi_batch", "scanvi_label", "scanvi_predicted", "scanvi_confidence"]
    pd.testing.assert_frame_equal(made.obs.drop(columns=added), mine.obs)
    pd.testing.assert_frame_equal(made.var, mine.var)
    assert (mine.layers["counts"] != made.X).nnz == 0, "the counts, of all genes"
    assert {name: values.shape for name, values in made.obsm.items()} == {
        "X_scVI": (24, 3),
        "X_scANVI": (24, 3),
        "X_umap": (24, 2),
    }
    table = pd.read_csv(separate.folder / "one" / "predictions.csv")
    assert list(made.obs.scanvi_predicted) == list(table.max_column)
    assert np.allclose(made.obs.scanvi_confidence, table.max_value)
    soft = asked_again(separate.folder / "one", made)
    assert np.allclose(soft, table[["T/A", "T/B"]], atol=1e-5)
    reference = read_h5ad(separate.folder / "one" / "reference.h5ad")
    assert list(reference.var_names) == list(read_h5ad(separate.files["reference"]).var_names)
    assert concat([reference, made]).shape == (64, 20), "both together have the genes that they share"


def test_queries_of_several_files_have_the_genes_that_these_share(separate: Done) -> None:
    made = read_h5ad(separate.folder / "both" / "transfer.h5ad")
    mine = [read_h5ad(separate.files[name]) for name in ("qa", "qb")]
    genes = [name for name in mine[0].var_names if name in mine[1].var_names]
    assert list(made.var_names) == genes
    pd.testing.assert_frame_equal(made.var, mine[0].var.loc[genes])
    counts = sp.vstack([one[:, genes].layers["counts"] for one in mine])
    assert (counts != made.X).nnz == 0
    assert list(made.obs.score) == [*mine[0].obs.score, *mine[1].obs.score]
    assert list(made.obs.flag[-2:]) == ["True", "False"], "text in one file, switches in the other"
    assert made.obs.scanvi_predicted.isna().sum() == 24
    assert list(made.obs_names[[0, -1]]) == ["qa:0000", "qb:0009"]
    assert "both: transfer.h5ad has the 15 genes that its 2 files share, of 21 at most" in separate.said


def test_the_line_of_the_docs_joins_them_to_ones_own_object(separate: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(separate.folder.parent)
    section = (DOCS / "own-data.md").read_text().partition("## Back into your own object")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(re.findall("^adata.obs =.*join.*$", code, re.MULTILINE)) == 1, "in one line"
    adata = read_h5ad(separate.files["qa"])
    before = adata.obs.copy()
    (separate.folder.parent / "query.h5ad").symlink_to(separate.files["qa"])
    names = {"studies/NAME/transfer/QUERY": "transfer/one"}
    found: dict[str, Any] = {}
    exec(re.sub("|".join(names), lambda one: names[one[0]], code), found)
    joined = found["adata"].obs
    table = pd.read_csv("transfer/one/predictions.csv")
    pd.testing.assert_frame_equal(joined[before.columns], before)
    assert list(joined.max_column) == list(table.max_column)
    assert np.allclose(joined.max_value, table.max_value)


def test_a_copy_of_ones_own_file_has_all_that_it_had_and_more(separate: Done) -> None:
    path = separate.folder / "both" / "qb.labelled.h5ad"
    assert separate.wrote == [separate.folder / "one", separate.folder / "both", path]
    added = {"obs/scanvi_predicted_2", "obs/scanvi_confidence", "obsm/X_scVI", "obsm/X_scANVI", "obsm/X_umap_2"}
    assert added_to(separate.files["qb"], path) == added
    made, mine = read_h5ad(path), read_h5ad(separate.files["qb"])
    pd.testing.assert_frame_equal(made.obs[mine.obs.columns], mine.obs)
    table = pd.read_csv(separate.folder / "both" / "predictions.csv").iloc[24:]
    assert list(made.obs.columns[-2:]) == ["scanvi_predicted_2", "scanvi_confidence"]
    assert list(made.obs.scanvi_predicted_2) == list(table.max_column)
    assert np.allclose(made.obs.scanvi_confidence, table.max_value)
    query = read_h5ad(separate.folder / "both" / "transfer.h5ad")
    assert np.array_equal(made.obsm["X_scANVI"], query.obsm["X_scANVI"][24:])
    assert "obsm['X_umap'] is there already and stays; the new one is obsm['X_umap_2']" in "".join(separate.said)
    assert "10 of 10 cells are labelled" in separate.said[-1]


def added_to(mine: Path, copy: Path) -> set[str]:
    """What a copy has more; all else must be the same, byte for byte, but for the list of columns."""
    new = set()
    with h5py.File(mine) as before, h5py.File(copy) as after:

        def compare(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if name not in before:
                new.add("/".join(name.split("/")[:2]))
                return
            attributes = dict(before[name].attrs), dict(item.attrs)
            for one in attributes if name == "obs" else ():
                one.pop("column-order")
            assert repr(attributes[0]) == repr(attributes[1])
            if isinstance(item, h5py.Dataset):
                assert item.dtype == before[name].dtype
                assert item.shape == before[name].shape
                assert item.compression == before[name].compression
                assert item.size == 0 or np.array_equal(item[()], before[name][()])

        after.visititems(compare)
        assert set(names_in(before)) <= set(names_in(after))
    return new


def names_in(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visit(found.append)
    return found


def test_names_of_queries_are_no_paths_and_all_of_their_cells_are_labelled(toy: AnnData, tmp_path: Path) -> None:
    """Two of them in one file: the labels are in one column, each has latent spaces of its own, the rest is missing."""
    toy = toy[np.random.default_rng(0).permutation(60)].copy()
    toy.obs["ds"] = pd.Categorical(toy.obs["ds"].map({"ref": "ref", "q1": "../../out", "q2": "x/y"}))
    toy.uns["kept"] = "yes"
    toy.write_h5ad(tmp_path / "toy.h5ad")
    before = set(tmp_path.iterdir())
    root = tmp_path / "deep" / "studies"
    config = compose(
        [
            *(*SMALL, f"root={root}", "name=it", "data=forum", f"data.path={tmp_path / 'toy.h5ad'}"),
            *("data.layer=null", "data.labels_key=label", "data.dataset_key=ds", "data.batch_key=ds", "query_cells=5"),
        ]
    )
    wrote, said = transfer(config, tmp_path / "toy.h5ad")
    assert set(tmp_path.iterdir()) == {*before, tmp_path / "deep"}
    assert list(root.iterdir()) == [root / "it"]
    called = file_names(["../../out", "x/y"])
    home = root / "it" / "transfer"
    assert wrote == [*(home / name for name in called.values()), home / "toy.labelled.h5ad"]
    assert said[0] == "All cells of a query are labelled; query_cells=5 is of the study's conditions."
    tables = {name: pd.read_csv(home / folder / "predictions.csv") for name, folder in called.items()}
    assert [len(table) for table in tables.values()] == [20, 10]
    made = read_h5ad(home / "toy.labelled.h5ad")
    assert added_to(tmp_path / "toy.h5ad", home / "toy.labelled.h5ad") == {
        *("obs/scanvi_predicted", "obs/scanvi_confidence"),
        *(f"obsm/{kind}_{name}" for kind in ("X_scVI", "X_scANVI", "X_umap") for name in called.values()),
    }
    for name, table in tables.items():
        mine = made.obs.iloc[table.row]
        assert list(mine.index) == list(table.cell)
        assert set(mine.ds) == {name}
        assert list(table.row) == sorted(table.row)
        assert list(mine.scanvi_predicted) == list(table.max_column)
        assert np.allclose(mine.scanvi_confidence, table.max_value)
        latent = made.obsm[f"X_scANVI_{called[name]}"]
        whole = read_h5ad(home / called[name] / "transfer.h5ad").obsm["X_scANVI"]
        assert np.array_equal(latent[table.row], whole)
        assert np.isnan(latent).any(axis=1).sum() == 60 - len(table)
    reference = made.obs[made.obs.ds == "ref"]
    assert len(reference) == 30
    assert reference[["scanvi_predicted", "scanvi_confidence"]].isna().all(axis=None)
    assert "30 of 60 cells are labelled" in said[-1]
    kept, queries = files_to_keep(config, Choice(config, (), (), pd.DataFrame(), ""))
    assert queries == ["../../out", "x/y"]
    assert {name.split("/")[1] for name in kept if name.startswith("models/")} == set(called.values())
    assert {name.count("/") for name in kept} == {2, 3}
