"""Large matrices: some rows at a time, in files instead of memory; and preparing never holds a whole one."""

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from study.cells import chunks as chunks
from study.cells.chunks import Rows, spool, write
from study.cells.twins import prepare
from study.config.data import DataConfig

ROWS, COLUMNS = 50, 8


@pytest.fixture
def matrix() -> sp.csr_matrix:
    """Counts of 50 x 8 with an empty row."""
    counts = np.random.default_rng(0).poisson(0.7, size=(ROWS, COLUMNS))
    counts[7] = 0
    return sp.csr_matrix(counts.astype(np.float32))


@pytest.mark.parametrize("values", [1, 24, 2**24])
def test_rows_come_in_their_order_whatever_the_chunks(matrix, monkeypatch, values):
    monkeypatch.setattr(chunks, "VALUES", values)
    order = np.random.default_rng(1).permutation(ROWS)[:37]
    rows = Rows(matrix, order)
    np.testing.assert_array_equal(sp.vstack(list(rows)).toarray(), matrix.toarray()[order])
    assert rows.sizes.tolist() == np.count_nonzero(matrix.toarray()[order], axis=1).tolist()
    together = spool(rows, COLUMNS)
    np.testing.assert_array_equal(together.toarray(), matrix.toarray()[order])
    assert together.data.dtype == np.float32
    assert together.indices.dtype == together.indptr.dtype == np.int32


def test_spooled_rows_are_read_only_and_leave_no_file(matrix, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    together = spool([matrix], COLUMNS)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="read-only"):
        together.data[0] = 1
    assert spool([matrix[:0], matrix[7:8]], COLUMNS).shape == (1, COLUMNS)


def test_both_index_arrays_are_wide_where_one_must_be(matrix, monkeypatch):
    monkeypatch.setattr(chunks, "MOST", matrix.nnz - 1)
    together = spool(Rows.all(matrix), COLUMNS)
    assert together.indices.dtype == together.indptr.dtype == np.int64
    assert (together != matrix).nnz == 0


def test_a_full_disk_is_an_error(matrix):
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="No space"):
        write([matrix], full, full, np.int32)


@pytest.mark.parametrize("form", ["csr", "dense"])
def test_preparing_never_holds_all_counts(tmp_path, monkeypatch, form):
    monkeypatch.setattr(chunks, "VALUES", 2**17)
    random, (n, genes) = np.random.default_rng(0), (4000, 1000)
    obs = pd.DataFrame(
        {"ds": np.repeat(["ref", "q"], [n // 4, 3 * n // 4]), "label": random.choice(["A", "B"], n)},
        index=[f"cell{i}" for i in range(n)],
    )
    counts = sp.random(n, genes, 0.2, "csr", dtype=np.float32, random_state=random)
    counts.data = np.ceil(counts.data * 5)
    matrix = counts if form == "csr" else counts.toarray()
    AnnData(matrix, obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(genes)])).write_h5ad(tmp_path / "a.h5ad")
    keys = {"dataset_key": "ds", "reference_value": "ref", "labels_key": "label", "truth_key": "label"}
    thinned = {"q": {}, "thinned": {"thin": 0.9}}
    config = DataConfig.model_validate(
        {"name": "a", "source": "combined", "path": tmp_path / "a.h5ad", **keys, "queries": thinned}
    )
    prepare(config, ["none"], tmp_path / "first")  # what is loaded and kept at the first use counts for nothing
    tracemalloc.start()
    try:
        cells = prepare(config, ["q", "thinned", "self"], tmp_path / "prepared")
        digests = {one.digest() for one in cells.values()}
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(digests) == 3
    assert peak < (counts.data.nbytes + counts.indices.nbytes) / 2
