"""Queries and their altered twins."""

import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from study.cells.alignment import read_source
from study.cells.prepared import Cells
from study.cells.twins import prepare, select_rows, spec_of, thin
from study.config.composition import compose
from study.config.data import DataConfig
from tests.made import FINE

LABELS = ("asis", "shallow", "skewed", "self", "none")


@pytest.fixture(scope="module")
def data() -> DataConfig:
    return compose(FINE).data


@pytest.fixture(scope="module")
def cells(data, tmp_path_factory) -> dict[str, Cells]:
    return prepare(data, LABELS, tmp_path_factory.mktemp("prepared"))


def with_queries(data: DataConfig, **queries: dict) -> DataConfig:
    return DataConfig.model_validate({**data.model_dump(), "queries": queries})


def query_counts(cells: Cells) -> np.ndarray:
    return cells.counts[cells.n_reference :].toarray()


def names(cells: Cells) -> list[str]:
    return cells.names[cells.n_reference :].tolist()


def truth(cells: Cells) -> list[str]:
    return [cells.truth_classes[code] for code in cells.truth]


def test_all_share_the_reference(cells):
    first = cells["asis"]
    for other in cells.values():
        rows = slice(0, other.n_reference)
        np.testing.assert_array_equal(other.counts[rows].toarray(), first.counts[rows].toarray())
        assert other.names[rows].tolist() == first.names[rows].tolist()
        assert other.labels.tolist() == first.labels.tolist()
        assert other.genes.tolist() == first.genes.tolist()
        assert len(set(other.names)) == len(other.names)


def test_none_has_no_query(cells):
    assert (cells["none"].n_reference, cells["none"].n_query) == (269, 0)
    assert cells["none"].batches == ("1", "2", "3")
    assert cells["none"].digest() == cells["asis"].first(0).digest()


def test_shallow_is_the_same_cells_thinned_to_a_fifth(cells):
    plain, shallow = cells["asis"], cells["shallow"]
    assert names(plain) == names(shallow)
    assert truth(plain) == truth(shallow)
    before, after = query_counts(plain), query_counts(shallow)
    assert (after <= before).all()
    assert (after == np.rint(after)).all()
    # 290,000 counts kept with probability 0.2: the share kept has a standard error of 0.00074.
    assert after.sum() / before.sum() == pytest.approx(0.2, abs=0.004)
    by_cell = after.sum(axis=1) / before.sum(axis=1)
    assert by_cell.std() == pytest.approx(np.sqrt(0.16 / before.sum(axis=1)).mean(), rel=0.2), "binomial by cell"
    assert shallow.counts.nnz == np.count_nonzero(shallow.counts.toarray()), "no zero is stored"


def test_prefixes_are_the_same_cells(cells):
    for n in (1, 30, 100):
        assert names(cells["asis"].first(n)) == names(cells["shallow"].first(n)) == names(cells["asis"])[:n]


def test_skewed_has_the_shares_and_is_as_large_as_can_be(cells):
    skewed = cells["skewed"]
    assert Counter(truth(skewed)) == {
        "CD14+ Monocyte": 82,
        "Dendritic": 123,
    }  # 82 is all there are; 82 / 0.4 * 0.6 = 123
    position = {name: i for i, name in enumerate(names(cells["asis"]))}
    order = [position[name] for name in names(skewed)]
    assert order == sorted(order), "the order of its base"
    np.testing.assert_array_equal(query_counts(skewed), query_counts(cells["asis"])[order])


def test_every_prefix_of_a_composed_query_has_about_its_shares(data):
    # Over many draws, the first 20 cells hold a fifth of one label: were the first cells of each label taken instead
    # of drawn, the few that are taken of the abundant label would all stand at the front.
    shares = []
    for seed in range(15):
        config = with_queries(data, a={"compose": {"Dendritic": 0.2, "CD14+ Monocyte": 0.8}}).model_copy(
            update={"seed": seed}
        )
        source, _ = read_source(config)
        rows = select_rows(source, spec_of(config, "a"), "a", seed)
        shares.append(np.mean(source.label[rows[:20]] == "Dendritic"))
    assert np.mean(shares) == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / 20 / 15))


def test_drop_leaves_all_others(data, cells, tmp_path):
    left = prepare(with_queries(data, a={"drop": ["Dendritic", "CD34+"]}), ["a"], tmp_path)["a"]
    assert names(left) == [
        name
        for name, label in zip(names(cells["asis"]), truth(cells["asis"]), strict=True)
        if label not in ("Dendritic", "CD34+")
    ]


def test_a_query_of_some_datasets(data, cells, tmp_path):
    config = with_queries(data, one={"of": "5"}, two={"of": ["5", "7"], "thin": 0.5})
    made = prepare(config, ["one", "two"], tmp_path)
    assert names(made["one"]) == [name for name in names(cells["asis"]) if name.endswith("-5")]
    assert names(made["two"]) == [name for name in names(cells["asis"]) if name[-2:] in ("-5", "-7")]
    assert made["one"].batches == ("1", "2", "3", "5")


def test_self_copies_reference_cells_in_passes_without_repeats(cells):
    twin = cells["self"]
    assert twin.n_query == 431, "as many as the largest query"
    assert sorted(twin.origin[:269]) == list(range(269))
    assert len(set(twin.origin[269:])) == 431 - 269
    assert twin.origin[:269].tolist() != sorted(twin.origin[:269])
    assert twin.origin[269:].tolist() != twin.origin[: 431 - 269].tolist()
    np.testing.assert_array_equal(query_counts(twin), twin.counts[twin.origin].toarray())
    assert twin.truth.tolist() == twin.labels[twin.origin].tolist()
    assert twin.batch[269:].tolist() == twin.batch[twin.origin].tolist()
    assert twin.names[269] == f"{twin.names[twin.origin[0]]}:self1"
    assert twin.names[-1] == f"{twin.names[twin.origin[-1]]}:self2"


def test_origin_counts_rows_of_the_reference_as_prepared(toy, combined, tmp_path):
    # Reference cells that are scattered over the file, one of them empty: rows of the file are not rows of Cells.
    toy = toy[::-1].copy()
    counts = toy.X.toarray()
    counts[40] = 0
    toy.X = sp.csr_matrix(counts)
    twin = prepare(combined(toy), ["self"], tmp_path)["self"]
    assert twin.n_reference == 29
    np.testing.assert_array_equal(query_counts(twin), twin.counts[twin.origin].toarray())
    assert [name.partition(":")[0] for name in names(twin)] == twin.names[twin.origin].tolist()


def test_thinning_that_empties_a_cell_leaves_it_out(toy, combined, tmp_path):
    config = combined(toy, queries={"a": {"thin": 0.03}})
    made = prepare(config, ["a"], tmp_path)["a"]
    assert 2 <= made.n_query < 30
    assert (query_counts(made).sum(axis=1) > 0).all()


@pytest.mark.parametrize("keep", [0.05, 0.5, 1.0])
def test_thin_keeps_each_count_with_a_probability(keep):
    counts = sp.csr_matrix(np.full((200, 50), 20, dtype=np.float32))
    thinned = thin(counts, keep, np.random.default_rng(0))
    values = thinned.toarray()
    assert values.mean() == pytest.approx(20 * keep, rel=0.02)
    assert values.var() == pytest.approx(20 * keep * (1 - keep), rel=0.05, abs=1e-9)
    assert counts.data.min() == 20, "the original stays as it is"


# --- what is prepared once


def folders(path: Path) -> set[str]:
    return {folder.name for folder in path.iterdir()}


def test_the_second_time_nothing_is_read(data, cells, tmp_path, monkeypatch):
    prepare(data, LABELS, tmp_path)

    def no_reading(*_args):
        raise AssertionError("read again")

    monkeypatch.setattr("study.cells.twins.read_source", no_reading)
    again = prepare(data, LABELS, tmp_path)
    assert {name: found.digest() for name, found in again.items()} == {n: c.digest() for n, c in cells.items()}
    renamed = with_queries(data, other={}).model_copy(update={"name": "other"})
    assert prepare(renamed, ["other"], tmp_path)["other"].digest() == cells["asis"].digest(), "names are no content"


def test_a_flipped_byte_is_said_and_mended(data, cells, tmp_path, caplog):
    prepare(data, ["asis"], tmp_path)
    (path,) = tmp_path.glob("*/counts_data.npy")
    content = bytearray(path.read_bytes())
    content[5000] ^= 4
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        again = prepare(data, ["asis"], tmp_path)["asis"]
    assert "counts_data" in caplog.text
    assert again.digest() == cells["asis"].digest()


def test_renaming_a_file_changes_nothing_and_its_content_does(toy, combined, tmp_path):
    config = combined(toy)
    first = prepare(config, ["q1"], tmp_path / "p")["q1"]
    moved = tmp_path / "elsewhere.h5ad"
    shutil.move(config.path, moved)
    config = config.model_copy(update={"path": moved})
    assert prepare(config, ["q1"], tmp_path / "p")["q1"].digest() == first.digest()
    assert len(folders(tmp_path / "p")) == 1
    toy.X[0, 0] += 1
    toy.write_h5ad(moved)
    assert prepare(config, ["q1"], tmp_path / "p")["q1"].digest() != first.digest()
    assert len(folders(tmp_path / "p")) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"genes": 100},
        {"labels_key": "louvain"},
        {"truth_key": None},
        {"batch_key": None},
        {"reference_value": "1"},
    ],
)
def test_what_changes_cells_prepares_them_anew(data, cells, tmp_path, change):
    made = prepare(data.model_copy(update=change), ["asis"], tmp_path)["asis"]
    assert made.digest() != cells["asis"].digest()
    prepare(data, ["asis"], tmp_path)
    assert len(folders(tmp_path)) == 2


def test_adding_a_query_leaves_the_others_as_they_are(data, cells, tmp_path):
    more = with_queries(data, **{**data.model_dump()["queries"], "extra": {"of": "4", "thin": 0.1}})
    for name in ("asis", "shallow", "skewed"):
        assert prepare(more, [name], tmp_path)[name].digest() == cells[name].digest()
