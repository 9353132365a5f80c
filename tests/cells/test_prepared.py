"""Prepared cells: prefixes, digests, and files that are found broken."""

import dataclasses
import json
import pickle

import numpy as np
import pytest

from study.cells.chunks import Rows
from study.cells.prepared import Cells, load_cells, recode, save_cells
from study.cells.twins import prepare
from study.config.composition import compose
from study.errors import InputError
from study.plan.condition import Condition
from tests.made import FINE


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Cells:
    return prepare(compose(FINE).data, ["asis"], tmp_path_factory.mktemp("prepared"))["asis"]


def test_rows_and_codes_fit_together(cells):
    rows = cells.n_reference + cells.n_query
    assert (cells.n_reference, cells.n_query, len(cells.genes)) == (269, 431, 765)
    assert cells.counts.shape == (rows, 765)
    assert len(cells.batch) == len(cells.names) == len(set(cells.names)) == rows
    assert cells.labels.max() == len(cells.classes) - 1
    assert list(cells.classes) == sorted(cells.classes)
    assert cells.counts.dtype == np.float32
    assert {a.dtype for a in (cells.labels, cells.truth, cells.batch)} == {np.dtype(np.int32)}
    assert (cells.origin == -1).all()


@pytest.mark.parametrize("n", [0, 1, 30, 430])
def test_first_is_a_view_of_a_prefix(cells, n):
    part = cells.first(n)
    assert (part.n_reference, part.n_query) == (269, n)
    for name in ("data", "indices", "indptr"):
        assert np.shares_memory(getattr(part.counts, name), getattr(cells.counts, name))
    for name in ("truth", "origin"):
        assert len(getattr(part, name)) == n
    np.testing.assert_array_equal(part.counts.toarray(), cells.counts[: 269 + n].toarray())
    truth = [part.truth_classes[code] for code in part.truth]
    assert truth == [cells.truth_classes[code] for code in cells.truth[:n]]
    assert [part.batches[code] for code in part.batch] == [cells.batches[code] for code in cells.batch[: 269 + n]]
    assert set(part.batch) == set(range(len(part.batches))), "no batch without cells"


def test_a_condition_of_fewer_query_cells_costs_no_copy(cells):
    part = Condition("asis", 30).take(cells)
    assert (part.n_query, part.counts.has_canonical_format) == (30, True)
    for name in ("data", "indices"):
        assert np.shares_memory(getattr(part.counts, name), getattr(cells.counts, name))


def test_the_digest_of_the_bundled_cells_stays(cells):
    # Another one would train whole studies again: raise SCHEMA then, and say so.
    assert cells.digest() == "3ac64d1298413fbaa1267e9568e86b08296b0d2baa2e6bc7d56ce3a3901495a9"


def test_first_of_first_is_first(cells):
    assert cells.first(100).first(30).digest() == cells.first(30).digest()
    assert cells.first("all") is cells
    assert cells.first(431) is cells


@pytest.mark.parametrize("n", [432, -1])
def test_more_cells_than_there_are_is_an_input_error(cells, n):
    with pytest.raises(InputError, match=f"query_cells={n}: the query has 431 cells"):
        cells.first(n)


def test_recode_drops_unused_words_but_those_to_keep():
    words, codes = recode(("a", "b", "c", "d"), np.array([-1, 3, 1], dtype=np.int32), keep=1)
    assert words == ("a", "b", "d")
    assert codes.tolist() == [-1, 2, 1]


def changed(cells: Cells, field: str) -> Cells:
    value = getattr(cells, field)
    if field == "counts":
        value = value.copy()
        value.data[-1] += 1
    elif field in ("classes", "truth_classes"):
        value = (value[0] + "x", *value[1:])
    else:
        value = value.copy()
        value[0] = value[0] + 1 if value.dtype.kind == "i" else "other"
    return dataclasses.replace(cells, **{field: value})


@pytest.mark.parametrize("field", ["counts", "genes", "classes", "labels", "truth", "truth_classes", "batch", "origin"])
def test_digest_changes_with_what_can_change_a_result(cells, field):
    assert changed(cells, field).digest() != cells.digest()


def test_digest_does_not_change_with_names_or_types(cells):
    assert changed(cells, "names").digest() == cells.digest()
    wide = cells.counts.copy()
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    assert dataclasses.replace(cells, counts=wide).digest() == cells.digest()


def test_digest_tells_reference_from_query(cells):
    # The same rows, one cell fewer in the reference and one more in the query, are other cells.
    moved = dataclasses.replace(
        cells,
        labels=cells.labels[:-1],
        truth=np.concatenate([cells.labels[-1:], cells.truth]),
        origin=np.concatenate([cells.origin[:1], cells.origin]),
    )
    assert moved.digest() != cells.digest()


def test_save_and_load_give_the_same_read_only_cells(cells, tmp_path):
    save_cells(cells, [Rows.all(cells.counts)], tmp_path / "a", {})
    loaded = load_cells(tmp_path / "a")
    assert loaded is not None
    assert loaded.digest() == cells.digest()
    assert loaded.names.tolist() == cells.names.tolist()
    assert loaded.batches == cells.batches
    assert not loaded.counts.data.flags.writeable
    assert pickle.loads(pickle.dumps(loaded)).digest() == cells.digest()
    assert not list((tmp_path / "a").glob(".*")), "no temporary file is left"


def test_nothing_is_loaded_where_nothing_is(tmp_path):
    assert load_cells(tmp_path) is None


BREAK = {
    "a flipped byte": lambda folder: flip(folder / "counts_data.npy"),
    "a flipped label": lambda folder: flip(folder / "labels.npy"),
    "a truncated array": lambda folder: (folder / "truth.npy").write_bytes((folder / "truth.npy").read_bytes()[:-4]),
    "a missing array": lambda folder: (folder / "batch.npy").unlink(),
    "an edited word": lambda folder: edit(folder / "cells.json", "Dendritic", "Dendritik"),
    "no JSON": lambda folder: (folder / "cells.json").write_text("{"),
    "other JSON": lambda folder: (folder / "cells.json").write_text("[]"),
    "an empty file": lambda folder: (folder / "cells.json").write_text(""),
}


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def edit(path, old, new):
    json.loads(path.read_text().replace(old, new))
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("broken", BREAK)
def test_broken_files_are_found_and_said(cells, tmp_path, caplog, broken):
    save_cells(cells, [Rows.all(cells.counts)], tmp_path, {})
    BREAK[broken](tmp_path)
    assert load_cells(tmp_path) is None
    assert str(tmp_path) in caplog.text
    assert "prepared again" in caplog.text
    save_cells(cells, [Rows.all(cells.counts)], tmp_path, {})
    assert load_cells(tmp_path).digest() == cells.digest()


def test_a_write_that_fails_leaves_no_cells(cells, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("study.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_cells(cells, [Rows.all(cells.counts)], tmp_path, {})
    assert list(tmp_path.iterdir()) == []
