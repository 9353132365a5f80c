"""Reading: what must work, and the bad input that must be refused with one message."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from study.cells.alignment import read_source
from study.cells.check import check_data
from study.cells.h5ad import open_h5ad
from study.cells.sources import as_text, pbmc68k, query_names
from study.cells.twins import prepare
from study.config.composition import compose
from study.config.data import DataConfig
from study.errors import InputError
from tests.made import FINE


@pytest.fixture(autouse=True)
def small_chunks(request, monkeypatch):
    """The toy cells are read 11 at a time, so that all of this holds across chunks."""
    if "toy" in request.fixturenames:
        monkeypatch.setattr("study.cells.chunks.VALUES", 230)


def dense(counts: AnnData) -> np.ndarray:
    return np.asarray(counts.X.toarray())


def separate(folder: Path, parts: dict[str, AnnData], **changes: Any) -> DataConfig:
    paths = {}
    for name, cells in parts.items():
        cells.write_h5ad(folder / f"{name}.h5ad")
        paths[name] = folder / f"{name}.h5ad"
    return compose(
        ["data=separate", f"data.reference={paths.pop('reference')}", f"data.query_paths={{{queries(paths)}}}"]
    ).data.model_copy(update={"labels_key": "label", **changes})


def queries(paths: dict[str, Path]) -> str:
    return ", ".join(f"{name}: {path}" for name, path in paths.items())


# --- bad input: each case changes the cells or the configuration, and one message says what, where, expected, remedy


@dataclass(frozen=True)
class Bad:
    """A mistake, and words that the one message about it must have."""

    said: tuple[str, ...]
    cells: Callable[[AnnData], AnnData | None] = lambda cells: None
    file: Callable[[Path], object] = lambda path: None
    config: dict[str, Any] = field(default_factory=dict)


def values(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[AnnData], AnnData]:
    def change(cells: AnnData) -> AnnData:
        return AnnData(sp.csr_matrix(function(dense(cells))), obs=cells.obs, var=cells.var)

    return change


def put(value: float) -> Callable[[AnnData], AnnData]:
    def change(counts: np.ndarray) -> np.ndarray:
        counts[3, 4] = value
        return counts

    return values(change)


def obs(key: str, function: Callable[[pd.Series], Any]) -> Callable[[AnnData], None]:
    def change(cells: AnnData) -> None:
        cells.obs[key] = function(cells.obs[key].copy())

    return change


def rows(function: Callable[[AnnData], Any]) -> Callable[[AnnData], AnnData]:
    return lambda cells: cells[np.asarray(function(cells))].copy()


def rename(what: str, names: Callable[[pd.Index], Any]) -> Callable[[AnnData], None]:
    def change(cells: AnnData) -> None:
        with warnings.catch_warnings(action="ignore"):  # anndata says that names are not unique
            setattr(cells, what, names(getattr(cells, what)))

    return change


def reference(column: pd.Series) -> pd.Series:
    return pd.Series(np.arange(60) < 30, index=column.index)


def log1p(counts: np.ndarray) -> np.ndarray:
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)


def inexact(counts: np.ndarray) -> np.ndarray:
    logged = log1p(counts)
    logged[5] *= 0.97
    return logged


COMPOSE = {"a": {"compose": {"A": 1, "Z": 1}}}
BAD = {
    "missing file": Bad(("toy.h5ad: no such file", "Expected an h5ad"), file=Path.unlink),
    "misspelt file": Bad(
        ("no such file", "Did you mean 'toy2.h5ad'"), file=lambda p: p.rename(p.with_name("toy2.h5ad"))
    ),
    "folder": Bad(("is a folder",), file=lambda p: (p.unlink(), p.mkdir())),
    "empty file": Bad(("is empty (0 bytes)", "Expected an h5ad"), file=lambda p: p.write_bytes(b"")),
    "text file": Bad(("is no h5ad", "b'a,b,c"), file=lambda p: p.write_text("a,b,c\n1,2,3\n")),
    "truncated file": Bad(("broken or truncated", "again"), file=lambda p: p.write_bytes(p.read_bytes()[:-4000])),
    "half a file": Bad(("broken or truncated", "again"), file=lambda p: p.write_bytes(p.read_bytes()[:5000])),
    "HDF5 but no h5ad": Bad(("is no h5ad", "no obs"), file=lambda p: hdf5(p)),
    "no layer": Bad(
        ("no layer 'count'", "Did you mean 'counts'", "X (data.layer=null)", "data.layer="),
        cells=lambda c: c.layers.update(counts=c.X),
        config={"layer": "count"},
    ),
    "no X": Bad(
        ("has no X", "'counts'", "data.layer="), cells=lambda c: AnnData(obs=c.obs, var=c.var, layers={"counts": c.X})
    ),
    "nan": Bad(("not finite (such as nan)", ": X"), cells=put(np.nan)),
    "infinite": Bad(("not finite (such as inf)",), cells=put(np.inf)),
    "negative": Bad(("negative values (such as -2", "scaling", "data.layer="), cells=put(-2)),
    "fractional": Bad(("no integers (such as 1.5", "data.layer="), cells=put(1.5)),
    "log1p": Bad(
        ("log1p of counts normalised to 10,000", "data.layer=...", "data.restore_counts=true"),
        cells=values(log1p),
    ),
    "log1p not exact": Bad(("log1p", "not exact for 1 of 60 cells"), cells=values(inexact)),
    "log1p not exact, to restore": Bad(
        ("not exact for 1 of 60 cells",), cells=values(inexact), config={"restore_counts": True}
    ),
    "log1p in X, counts in a layer": Bad(
        ("X has values", "log1p", "Raw counts are in this file: say data.layer=counts."),
        cells=lambda c: AnnData(values(log1p)(c).X, obs=c.obs, var=c.var, layers={"counts": c.X}),
    ),
    "too large": Bad(("33554432", "float32"), cells=put(2**25)),
    "zeros": Bad(("no value above 0",), cells=values(lambda x: x * 0)),
    "no cells": Bad(("has 0 cells",), cells=rows(lambda c: np.zeros(60, dtype=bool))),
    "no genes": Bad(("0 genes",), cells=lambda c: c[:, []].copy()),
    "cell names twice": Bad(
        ("1 cell names occur more than once", "'cell0'", "obs_names_make_unique"),
        cells=rename("obs_names", lambda n: ["cell0", *n[:-1]]),
    ),
    "gene names twice": Bad(
        ("1 gene names occur more than once", "'gene0'", "var_names_make_unique"),
        cells=rename("var_names", lambda n: ["gene0", *n[:-1]]),
    ),
    "no dataset column": Bad(
        ("no column 'dss' (data.dataset_key)", "Did you mean 'ds'", "data.dataset_key="),
        config={"dataset_key": "dss", "batch_key": None},
    ),
    "no label column": Bad(
        ("no column 'labl' (data.labels_key)", "Did you mean 'label'", "'ds', 'label'"), config={"labels_key": "labl"}
    ),
    "no truth column": Bad(
        ("no column 'labels' (data.truth_key)", "Did you mean 'label'"), config={"truth_key": "labels"}
    ),
    "no batch column": Bad(("no column 'donor' (data.batch_key)", "data.batch_key="), config={"batch_key": "donor"}),
    "no reference": Bad(
        ("no cell has 'reff'", "Did you mean 'ref'", "'q1', 'q2', 'ref'"), config={"reference_value": "reff"}
    ),
    "one of two references": Bad(("no cell has 'ref2'",), config={"reference_value": ("ref", "ref2")}),
    "dataset missing": Bad(
        ("obs['ds'] (data.dataset_key) is missing or empty for 60",), cells=obs("ds", lambda c: np.nan)
    ),
    "batch missing": Bad(
        ("obs['ds'] (data.batch_key) is missing or empty for 2 of 60",),
        cells=obs("ds", lambda c: c.where(np.arange(60) > 1)),
    ),
    "label missing": Bad(
        ("labels of the reference", "missing or empty for 3 of 30", "Remove"),
        cells=obs("label", lambda c: c.where(np.arange(60) > 2)),
    ),
    "label empty": Bad(
        ("missing or empty for 10 of 30",), cells=obs("label", lambda c: c.astype(object).replace("A", ""))
    ),
    "label blank": Bad(
        ("missing or empty for 10 of 30",), cells=obs("label", lambda c: c.astype(object).replace("A", " \t"))
    ),
    "no labels at all": Bad(
        ("missing or empty for 30 of 30",), cells=obs("label", lambda c: c.where(np.arange(60) > 29))
    ),
    "Unknown as a label": Bad(
        ("10 cells are called 'Unknown'", "rename the label"),
        cells=obs("label", lambda c: c.astype(object).replace("B", "Unknown")),
    ),
    "one class": Bad(("all cells are 'A'", "at least 2 classes"), cells=obs("label", lambda c: "A")),
    "one reference cell": Bad(("the reference has 1 cell",), cells=rows(lambda c: np.arange(29, 60))),
    "more genes than there are": Bad(
        ("data.genes=30", "19 of 20 shared genes vary", "data.genes=all"), config={"genes": 30}
    ),
    "genes that cannot be ranked": Bad(
        ("data.genes=5", "only 18 genes vary"),
        config={"genes": 5},
        cells=values(lambda x: np.where(np.arange(20) < 2, 1, x)),
    ),
    "query of one cell": Bad(("query 'q2': has 1 cells", "at least 2"), cells=rows(lambda c: np.arange(51))),
    "query of no dataset": Bad(
        ("no query cell is of dataset 'q3'", "Did you mean", "'q1', 'q2'"), config={"queries": {"a": {"of": "q3"}}}
    ),
    "query of the reference": Bad(("no query cell is of dataset 'ref'",), config={"queries": {"a": {"of": "ref"}}}),
    "query thinned away": Bad(
        ("has 0 cells with any count left after thinning",), config={"queries": {"a": {"thin": 1e-6}}}
    ),
    "query all dropped": Bad(("query 'a': has 0 cells",), config={"queries": {"a": {"drop": ["A", "B", "C"]}}}),
    "compose without such a label": Bad(("the label 'Z'", "'A', 'B', 'C'"), config={"queries": COMPOSE}),
    "drop without such a label": Bad(("the label 'a'",), config={"queries": {"a": {"drop": ["a"]}}}),
    "compose without truth": Bad(("true labels", "data.truth_key"), config={"queries": COMPOSE, "truth_key": None}),
    "a query called self": Bad(("is named 'self'", "data.queries="), config={"queries": {"self": {}}}),
    "a query called reference": Bad(("is named 'reference'",), config={"queries": {"reference": {}}}),
}


def hdf5(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["X"] = np.zeros((3, 3))


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_message_and_nothing_written(toy, combined, tmp_path, name):
    bad = BAD[name]
    cells = bad.cells(toy)
    config = combined(toy if cells is None else cells, **bad.config)
    bad.file(tmp_path / "toy.h5ad")
    with pytest.raises(InputError) as raised:
        prepare(config, query_names(config), tmp_path / "prepared")
    message = str(raised.value)
    for words in bad.said:
        assert words in message, message
    assert "Traceback" not in message
    assert not (tmp_path / "prepared").exists()
    assert any(bad.said[0] in problem for problem in check_data(config).problems)


def test_a_permission_error_is_an_input_error(toy, combined, tmp_path, monkeypatch):
    config = combined(toy)

    def denied(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(InputError, match=r"toy.h5ad: cannot be read \(Permission denied\)"):
        open_h5ad(config.path, None)


def test_all_problems_come_at_once(toy, combined, tmp_path):
    toy.obs["label"] = "A"
    toy = put(np.nan)(toy)
    config = combined(toy, batch_key="donor", truth_key=None)
    with pytest.raises(InputError) as raised:
        prepare(config, ["q1"], tmp_path)
    for words in ("not finite", "all cells are 'A'", "no column 'donor'"):
        assert words in str(raised.value)
    assert len(check_data(config).problems) == 3


def test_an_unknown_query_names_its_nearest(toy, combined, tmp_path):
    with pytest.raises(InputError, match=r"query=q11: no such query. Did you mean 'q1'"):
        prepare(combined(toy), ["q11"], tmp_path)


# --- what must work


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
@pytest.mark.parametrize("layer", [None, "counts"])
def test_every_kind_of_matrix_gives_the_same_cells(toy, combined, tmp_path, form, dtype, layer):
    counts = dense(toy) > 2 if dtype == "bool" else dense(toy)
    matrix = form(counts.astype(dtype))
    other = AnnData(
        matrix if layer is None else None, obs=toy.obs, var=toy.var, layers={layer: matrix} if layer else {}
    )
    cells = prepare(combined(other, layer=layer), ["q1"], tmp_path)["q1"]
    np.testing.assert_array_equal(cells.counts[:30].toarray(), counts[:30])
    position = {name: i for i, name in enumerate(toy.obs_names)}
    np.testing.assert_array_equal(cells.counts.toarray(), counts[[position[name] for name in cells.names]])


def test_values_are_judged_over_all_chunks(toy, combined):
    # Half of the values are negative, and the least comes last: numbers of one chunk would be others.
    counts = dense(toy)
    counts[:, 1:11] = -1
    counts[59, 5] = -7
    problem = check_data(combined(values(lambda _: counts)(toy))).problems[0]
    filled = np.count_nonzero(counts)
    assert f"such as -7; {600 / filled:.1%}" in problem
    fractional = dense(toy)
    fractional[40:, 1:11] = 1.5  # two chunks have none
    problem = check_data(combined(values(lambda _: fractional)(toy))).problems[0]
    assert f"such as 1.5; {200 / np.count_nonzero(fractional):.1%}" in problem


def test_one_value_too_large_for_a_logarithm_and_none_is_log1p(toy, combined):
    def mixed(counts: np.ndarray) -> np.ndarray:
        return np.where(np.arange(60)[:, None] < 59, log1p(counts), counts + 50)

    problem = check_data(combined(values(mixed)(toy), restore_counts=True)).problems[0]
    assert "Expected raw counts" in problem
    assert "log1p" not in problem


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_a_file_that_breaks_off_within_the_counts(toy, combined, form):
    import h5py

    toy.X = dense(toy) if form == "dense" else toy.X.asformat(form)
    config = combined(toy)
    with h5py.File(config.path, "r+") as file:
        if form == "dense":
            del file["X"]
            file["X"] = np.zeros((59, 20), dtype=np.float32)
        else:
            indices = file["X/indices"]
            indices[len(indices) - 3] = 10_000  # in the last chunk
    (problem,) = check_data(config).problems
    assert str(config.path) in problem


@pytest.mark.parametrize("broken", [lambda p: p + np.int32(2), lambda p: p[:-1], lambda p: p[::-1]])
def test_broken_row_pointers_are_found(toy, combined, broken):
    import h5py

    config = combined(toy)
    with h5py.File(config.path, "r+") as file:
        pointers = broken(file["X/indptr"][:])
        del file["X/indptr"]
        file["X/indptr"] = pointers
    (problem,) = check_data(config).problems
    assert str(config.path) in problem


def test_a_file_that_was_written_backed(toy, combined, tmp_path):
    import anndata

    config = combined(toy)
    backed = anndata.read_h5ad(config.path, backed="r+")
    backed.obs["label"] = backed.obs["label"].astype(str) + "1"
    backed.write()
    backed.file.close()
    assert prepare(config, ["q1"], tmp_path / "p")["q1"].classes == ("A1", "B1", "C1")


HOSTILE = [
    "a" * 300,
    "../../x",
    "<script>alert(1)</script>",
    "%s",
    "🧬",
    "Ελλ/ηνικά",
    "a\nb",
    "'; DROP",
    "CD4+ T",
    "CD4 T",
]


def test_hostile_labels_are_only_data(toy, combined, tmp_path):
    toy.obs["label"] = (HOSTILE * 6)[:60]
    toy.obs["ds"] = toy.obs["ds"].replace({"q1": "../q<1>"})
    config = combined(toy)
    first, again = (prepare(config, ["../q<1>"], tmp_path / "p")["../q<1>"] for _ in range(2))
    assert first.classes == tuple(sorted(HOSTILE)) == again.classes
    assert [first.classes[code] for code in first.labels] == toy.obs["label"].tolist()[:30]
    assert {path.parent for path in tmp_path.rglob("*.npy")} == {
        tmp_path / "p" / path.parent.name for path in tmp_path.rglob("*.npy")
    }
    assert check_data(config).problems == ()


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series([1, 2, 1]), ["1", "2", "1"]),
        (pd.Series([1.0, np.nan, 2.5]), ["1", "", "2.5"]),
        (pd.Series([1, None, 2], dtype="Int64"), ["1", "", "2"]),
        (pd.Series(["a", None, " "], dtype="category"), ["a", "", ""]),
        (pd.Series([3, 1, 3], dtype="category"), ["3", "1", "3"]),
        (pd.Series([True, False, True]), ["True", "False", "True"]),
        (pd.Series(["x", 1, 1.0], dtype=object), ["x", "1", "1"]),
        (pd.Series(["x", pd.NA, ""], dtype="string"), ["x", "", ""]),
    ],
)
def test_any_column_becomes_text(column, expected):
    assert as_text(column).tolist() == expected


def test_labels_that_are_numbers(toy, combined, tmp_path):
    toy.obs["label"] = np.arange(60) % 3
    cells = prepare(combined(toy), ["q1"], tmp_path)["q1"]
    assert cells.classes == ("0", "1", "2")
    assert (cells.labels == np.arange(30) % 3).all()


def test_strings_as_newer_releases_of_anndata_write_them(toy, combined, tmp_path):
    import h5py

    before = prepare(combined(toy), ["q1"], tmp_path)["q1"]
    toy.obs = toy.obs.astype("string")
    for frame in (toy.obs, toy.var):
        frame.index = frame.index.astype("string")
    with anndata.settings.override(allow_write_nullable_strings=True):
        config = combined(toy)
    with h5py.File(config.path) as file:
        written = [file[name].attrs["encoding-type"] for name in ("obs/_index", "var/_index", "obs/label")]
    assert set(written) <= {"nullable-string-array", "categorical"} and written[0] == written[1] != "categorical"
    found = prepare(config, ["q1"], tmp_path)["q1"]
    assert (found.classes, list(found.names)) == (before.classes, list(before.names))
    assert np.array_equal(found.labels, before.labels) and (found.counts != before.counts).nnz == 0


def test_unused_categories_are_no_classes(toy, combined, tmp_path):
    toy.obs["label"] = pd.Categorical(toy.obs["label"], categories=["A", "B", "C", "phantom"])
    assert prepare(combined(toy), ["q1"], tmp_path)["q1"].classes == ("A", "B", "C")


def test_truth_of_queries(toy, combined, tmp_path):
    toy.obs["label"] = toy.obs["label"].astype(object)
    toy.obs.iloc[30:34, 1] = ["new", "Unknown", None, "B"]
    cells = prepare(combined(toy), ["q1", "q2"], tmp_path)
    truth = dict(zip(cells["q1"].names[30:], cells["q1"].truth, strict=True))
    assert cells["q1"].truth_classes == ("A", "B", "C", "new")
    assert cells["q2"].truth_classes == ("A", "B", "C")
    assert [truth[f"cell{i}"] for i in range(30, 34)] == [3, -1, -1, 1]
    unknown = prepare(combined(toy, truth_key=None), ["q1"], tmp_path)["q1"]
    assert (unknown.truth == -1).all()


def test_reference_is_in_file_order_and_a_query_in_one_random_order(toy, combined):
    source, _ = read_source(combined(toy))
    assert source.reference.tolist() == list(range(30))
    assert sorted(source.query) == list(range(30, 60))
    assert source.query.tolist() != sorted(source.query)
    again, _ = read_source(combined(toy, seed=1))
    assert again.query.tolist() != source.query.tolist()


def test_another_query_moves_no_cell(toy, combined):
    both, _ = read_source(combined(toy))
    alone, _ = read_source(combined(toy[:50].copy()))
    assert [row for row in both.query if row < 50] == alone.query.tolist()


def test_reference_of_several_values_and_no_batch(toy, combined, tmp_path):
    cells = prepare(combined(toy, reference_value=("ref", "q2"), batch_key=None), ["q1"], tmp_path)["q1"]
    assert (cells.n_reference, cells.n_query) == (40, 20)
    assert cells.batches == ("all",)


def test_empty_cells_are_left_out_and_said(toy, combined, tmp_path, caplog):
    def empty(counts: np.ndarray) -> np.ndarray:
        counts[[2, 35]] = 0
        return counts

    config = combined(values(empty)(toy))
    cells = prepare(config, ["q1"], tmp_path)["q1"]
    assert (cells.n_reference, cells.n_query) == (29, 19)
    assert not {"cell2", "cell35"} & set(cells.names)
    assert "1 reference cells have no count" in caplog.text
    assert sum("have no count" in warning for warning in check_data(config).warnings) == 2


def test_restored_counts_are_the_counts(toy, combined, tmp_path):
    plain = prepare(combined(toy), ["q1"], tmp_path)["q1"]
    config = combined(values(log1p)(toy), restore_counts=True)
    assert prepare(config, ["q1"], tmp_path)["q1"].digest() == plain.digest()
    assert any("restored" in warning for warning in check_data(config).warnings)


def test_a_batch_of_both_in_one_file_is_a_warning(toy, combined):
    toy.obs["run"] = "run1"
    report = check_data(combined(toy, batch_key="run"))
    assert report.problems == ()
    assert any("'run1' occur in the reference and in queries" in warning for warning in report.warnings)


# --- several files


def test_separate_files_meet_on_the_genes_that_all_share(toy, tmp_path):
    reference, first, second = toy[:30, ::-1].copy(), toy[30:50, 3:].copy(), toy[50:, :15].copy()
    config = separate(tmp_path, {"reference": reference, "a": first, "b": second}, truth_key="label")
    assert query_names(config) == ("a", "b", "self", "none")
    cells = prepare(config, ["a", "b", "none"], tmp_path / "p")
    for name in cells:
        assert cells[name].genes.tolist() == [f"gene{i}" for i in range(14, 2, -1)], "order of the reference"
    assert cells["a"].batches == ("a", "reference")
    original = toy[cells["b"].names.tolist(), cells["b"].genes.tolist()]
    np.testing.assert_array_equal(cells["b"].counts.toarray(), dense(original))
    files = check_data(config).files
    assert files["shared with reference"].tolist() == [20, 17, 15]


def test_separate_files_with_the_same_cell_names(toy, tmp_path):
    query = toy[30:].copy()
    query.obs_names = toy.obs_names[:30]
    cells = prepare(separate(tmp_path, {"reference": toy[:30].copy(), "a": query}), ["a"], tmp_path / "p")["a"]
    assert len(set(cells.names)) == 60
    assert {name.split(":")[0] for name in cells.names[30:]} == {"a"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"genes": True}, ("no gene in common", "gene names")),
        ({"batch": "b1"}, ("'b1' occur in the reference and in queries", "data.batch_key=dataset")),
        ({"missing": True}, ("reference.h5ad: no such file", "a.h5ad: no such file")),
        ({"named": True}, ("a query is called 'a'",)),
        ({"no batch": True}, ("a.h5ad: obs has no column 'run'",)),
    ],
)
def test_bad_separate_files(toy, tmp_path, change, said):
    reference, query = toy[:30].copy(), toy[30:].copy()
    reference.obs["run"] = "b1"
    query.obs["run"] = change.get("batch", "b2")
    if "no batch" in change:
        del query.obs["run"]
    if "genes" in change:
        query.var_names = "ENSG" + query.var_names
    config = separate(tmp_path, {"reference": reference, "a": query}, batch_key="run")
    if "missing" in change:
        for path in tmp_path.glob("*.h5ad"):
            path.unlink()
    if "named" in change:
        config = config.model_copy(update={"reference_value": "a"})
    with pytest.raises(InputError) as raised:
        prepare(config, query_names(config), tmp_path / "p")
    assert not (tmp_path / "p").exists()
    problems = "\n".join(check_data(config).problems)
    for words in said:
        assert words in problems
        assert words.partition(":")[0] in str(raised.value)


def test_a_query_without_truth_among_others_is_a_warning(toy, tmp_path):
    first, second = toy[30:50].copy(), toy[50:].copy()
    del second.obs["label"]
    config = separate(tmp_path, {"reference": toy[:30].copy(), "a": first, "b": second}, truth_key="label")
    report = check_data(config)
    assert report.problems == ()
    assert any("b.h5ad: obs has no column 'label'" in warning for warning in report.warnings)
    cells = prepare(config, ["a", "b"], tmp_path / "p")
    assert (cells["a"].truth >= 0).all()
    assert (cells["b"].truth == -1).all()


# --- real cells


def test_bundled_counts_are_exact():
    sheet = pbmc68k()
    assert sheet.matrix.shape == (700, 765)
    totals = np.asarray(sheet.matrix.sum(axis=1)).ravel()
    assert totals[:5].tolist() == [628, 608, 566, 389, 964]
    assert sheet.obs["well"].value_counts().loc[["1", "2", "3"]].sum() == 269


def test_query_names():
    data = compose(FINE).data
    assert query_names(data) == ("asis", "shallow", "skewed", "self", "none")
    assert query_names(data.model_copy(update={"queries": {}})) == ("4", "5", "6", "7", "8", "self", "none")


def test_variable_genes_are_the_references_own(shared_data, tmp_path):
    import anndata
    import scanpy

    path = shared_data / "kang_ctrl_stim_2donors.h5ad"
    change = {"path": path, "source": "combined", "dataset_key": "batch", "reference_value": "ctrl", "genes": 200}
    change |= {"labels_key": "cell_type", "truth_key": "cell_type", "batch_key": "batch", "layer": None, "queries": {}}
    config = compose(FINE).data.model_copy(update=change)
    cells = prepare(config, ["stim"], tmp_path)["stim"]
    reference = anndata.read_h5ad(path)
    reference = reference[reference.obs["batch"] == "ctrl"].copy()
    scanpy.pp.highly_variable_genes(reference, n_top_genes=200, flavor="seurat_v3")
    assert cells.genes.tolist() == reference.var_names[reference.var["highly_variable"]].tolist()
    assert (cells.n_reference, cells.n_query) == (750, 806)


def test_real_files_of_two_species(shared_data, tmp_path):
    paths = {"human": shared_data / "baron_human2to4.h5ad", "mouse": shared_data / "baron_mouse.h5ad"}
    overrides = [
        "data=separate",
        f"data.reference={shared_data / 'baron_human1.h5ad'}",
        f"data.query_paths={{{queries(paths)}}}",
    ]
    config = compose([*overrides, "data.truth_key=cell_type"]).data
    report = check_data(config, folds=3)
    assert report.problems == ()
    assert report.files["shared with reference"].tolist() == [20125, 12473, 12473]
    assert report.cells["cells"].tolist() == [1937, 133, 175]
    assert any(
        "class 't_cell' has 2 reference cells, fewer than the 3 folds" in warning for warning in report.warnings
    ), report.warnings
