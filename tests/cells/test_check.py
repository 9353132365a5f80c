"""The report on data: facts that can be counted by hand, warnings, and problems in one pass."""

import json

import numpy as np
import pytest
import scipy.sparse as sp

from study.cells.check import check_data
from study.config.composition import compose
from tests.made import FINE


def test_the_bundled_cells_are_fit_and_described():
    report = check_data(compose(FINE).data, ("asis", "shallow"), points=300)
    assert report.problems == ()
    assert {name: (len(one.rows), one.of) for name, one in report.points.items()} == {
        "reference": (100, 269),
        "asis": (100, 431),
        "shallow": (100, 431),
    }
    asis, shallow = report.points["asis"], report.points["shallow"]
    assert set(report.labels["reference"]) <= {*report.classes["class"], ""}
    assert shallow.totals.mean() < 0.3 * asis.totals.mean()
    apart = [np.abs(one.at.mean(axis=0) - report.points["reference"].at.mean(axis=0)).max() for one in (asis, shallow)]
    assert apart[0] < apart[1] / 2, "the thinned query is shifted, its original is not"
    cells = report.cells.set_index("name")
    assert cells["cells"].to_dict() == {"reference": 269, "asis": 431, "shallow": 431}
    assert cells["batches"].to_dict() == {"reference": 3, "asis": 5, "shallow": 5}
    assert cells.loc["asis", "counts 50%"] == 651
    assert cells.loc["shallow", "counts 50%"] == pytest.approx(0.2 * 651, rel=0.05)
    classes = report.classes.set_index("class")
    assert classes.loc["Dendritic", ["reference cells", "asis cells", "asis share"]].tolist() == [91, 149, 0.346]
    assert classes.filter(like="cells").sum().tolist() == [269, 431, 431]
    assert report.batches.set_index("batch").loc["4"].tolist() == [0, 81, 81]


def test_tables_are_short_and_json_holds_everything(toy, combined):
    report = check_data(combined(toy, truth_key=None))
    assert not report.points, "nobody asked for them"
    assert [title.split(" ")[0].rstrip(",") for title, _ in report.tables()] == ["Cells", "Classes", "Batches", "Genes"]
    cells, classes = (table.set_index(table.columns[0]) for _, table in report.tables()[:2])
    middle, low, high = (f"{report.cells.loc[1, f'counts {share}%']:,.0f}" for share in (50, 25, 75))
    assert cells.loc["q1", "counts of a cell"] == f"{middle} ({low} to {high})"
    assert report.labelled == ["reference"], "queries without labels say nothing of classes"
    assert list(classes.columns) == ["reference cells"]
    assert "(unknown)" not in classes.index
    assert [int(text.split(" ")[0]) for text in classes["reference cells"]] == [
        size for size in report.classes["reference cells"] if size
    ]
    plain = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert plain["fit"] is True
    assert [row["name"] for row in plain["cells"]] == ["reference", "q1", "q2"]
    assert [row["cells"] for row in plain["cells"]] == [30, 20, 10]


def test_the_built_in_queries_can_be_described(toy, combined):
    cells = check_data(combined(toy), ("q1", "self", "none")).cells
    assert cells["cells"].tolist() == [30, 20, 20, 0]
    json.dumps(check_data(combined(toy), ("none",)).to_json(), allow_nan=False)


def test_small_classes_are_named():
    warnings = check_data(compose(FINE).data, folds=5).warnings
    assert any("class 'CD34+' has 4 reference cells, fewer than the 5 folds" in warning for warning in warnings)
    assert not any("Dendritic" in warning for warning in warnings)
    assert not check_data(compose(FINE).data, folds=3).warnings


def test_odd_labels_are_named(toy, combined):
    toy.obs["label"] = toy.obs["label"].astype(object)
    toy.obs.iloc[0, 1] = "single"
    toy.obs.iloc[[30, 55], 1] = "new type"
    warnings = check_data(combined(toy)).warnings
    assert any("class 'single' has 1 reference cells" in warning for warning in warnings)
    assert any("query 'q1': 1 cells have labels that the reference lacks ('new type')" in w for w in warnings)
    assert any("query 'q2'" in warning for warning in warnings)


def test_a_query_of_another_depth_is_named_but_not_a_thinned_twin(toy, combined):
    toy.X = sp.diags(np.where(toy.obs["ds"] == "q2", 1, 25)) @ toy.X
    queries = {"q1": {"of": "q1"}, "q2": {"of": "q2"}, "thin": {"of": "q1", "thin": 0.04}}
    report = check_data(combined(toy, queries=queries))
    (warning,) = report.warnings
    medians = report.cells.set_index("name")["counts 50%"]
    assert medians["reference"] / medians["thin"] > 20
    assert f"query 'q2': its cells have {medians['q2']:,.0f} counts, those of the reference 1," in warning


def test_a_query_without_most_classes_is_named_but_not_one_made_so(toy, combined):
    queries = {"q1": {"of": "q1"}, "made": {"of": "q1", "drop": ["A", "B"]}, "q2": {"of": "q2"}}
    config = combined(toy, queries=queries)
    assert not check_data(config).warnings
    toy.obs.loc[toy.obs["ds"] == "q2", "label"] = "B"
    (warning,) = check_data(combined(toy, queries=queries)).warnings
    assert "query 'q2': has no cell of 2 of the 3 classes of the reference ('A', 'C'); what is measured" in warning
    assert not check_data(combined(toy, queries={"q2": {"of": "q2"}}, truth_key=None)).warnings


def test_classes_in_one_batch_are_named(toy, combined):
    toy.obs["run"] = np.where(toy.obs["label"] == "B", "run1", np.where(np.arange(60) % 2, "run1", "run2"))
    toy.obs["run"] = toy.obs["run"].where(toy.obs["ds"] == "ref", toy.obs["ds"])
    (warning,) = check_data(combined(toy, batch_key="run")).warnings
    assert "all in one batch (obs['run'], data.batch_key): 'B'; what is particular to such a class" in warning
    assert not check_data(combined(toy)).warnings, "one batch is no choice"
    toy.obs["label"] = toy.obs["label"].astype(str).mask(np.isin(np.arange(60), [1, 31]), "few")
    assert not any("'few'" in text for text in check_data(combined(toy, batch_key="run")).warnings if "batch" in text)


def test_genes_without_counts_are_counted(toy, combined):
    counts = toy.X.toarray()
    counts[30:, 4] = 0
    counts[:30, 5] = 0
    toy.X = sp.csr_matrix(counts)
    cells = check_data(combined(toy)).cells
    assert cells["genes without counts"].tolist() == [1, 1, 1]
    assert cells["genes shared"].tolist() == [19, 18, 18]


def test_unknown_truth_is_shown_as_such(toy, combined):
    classes = check_data(combined(toy, truth_key=None)).classes.set_index("class")
    assert classes.loc["(unknown)", "q1 cells"] == 20
    assert classes.loc["(unknown)", "reference cells"] == 0


def test_queries_and_labels_with_names_of_columns(toy, combined):
    toy.obs["ds"] = toy.obs["ds"].replace({"q1": "class", "q2": "batch"})
    report = check_data(combined(toy))
    assert report.problems == ()
    assert report.classes["class cells"].sum() == 20
    json.dumps(report.to_json(), allow_nan=False)


def test_problems_of_files_and_of_every_query_come_in_one_pass(toy, combined):
    config = combined(toy, queries={"a": {"of": "q9"}, "b": {"drop": ["Z"]}, "c": {}})
    report = check_data(config)
    assert len(report.problems) == 2
    assert report.to_json()["fit"] is False
    assert report.cells["name"].tolist() == ["reference", "c"], "what can be described is"
    assert "no such query. Did you mean 'a'" in check_data(config, ("aa",)).problems[0]


def test_a_file_that_cannot_be_read_gives_a_report_without_tables(toy, combined):
    config = combined(toy)
    config.path.write_bytes(b"")
    report = check_data(config)
    assert len(report.problems) == 1
    assert report.tables() == []
    assert report.to_json()["cells"] == []


def test_mutated_files_end_in_a_report(toy, combined):
    config = combined(toy)
    whole = np.frombuffer(config.path.read_bytes(), dtype=np.uint8)
    random = np.random.default_rng(8)  # among its files are some that crash HDF5
    for _ in range(12):
        mutated = whole.copy()
        places = random.integers(len(mutated), size=random.integers(1, 30))
        mutated[places] = random.integers(256, size=len(places))
        config.path.write_bytes(mutated.tobytes())
        report = check_data(config)
        assert report.problems or len(report.cells)


def test_a_file_that_crashes_hdf5_is_a_problem(toy, combined, monkeypatch):
    monkeypatch.setattr("study.cells.unreadable.PROBE", "import os; os.abort()")
    (problem,) = check_data(combined(toy)).problems
    assert "is broken (the HDF5 library crashes or hangs on it)" in problem
