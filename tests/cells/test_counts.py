"""Raw counts in any form; what is none; and log1p values undone."""

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from study.cells.counts import as_csr, judge, normalised_to, restore


def poisson(cells: int = 40, genes: int = 50, mean: float = 3.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(mean, size=(cells, genes))


def logged(counts: np.ndarray, total: float = 1e4, dtype: type = np.float32) -> sp.csr_matrix:
    """What normalize_total and log1p make of counts."""
    return as_csr(np.log1p(counts / counts.sum(axis=1, keepdims=True) * total).astype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "uint8", "uint16"])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.csc_array, sp.coo_matrix])
def test_any_form_and_type_gives_the_same_counts(form, dtype):
    expected = poisson()
    found = as_csr(form(expected.astype(dtype)))
    assert isinstance(found, sp.csr_matrix)
    assert found.has_canonical_format
    np.testing.assert_array_equal(found.toarray(), expected)
    assert judge(found).problem is None


def test_bool_is_counts_of_one():
    found = as_csr(sp.csc_matrix(poisson() > 2))
    assert set(found.data) == {1.0}
    assert judge(found).problem is None


def test_duplicates_are_summed_and_stored_zeros_removed():
    matrix = sp.csr_matrix((np.array([1.0, 2.0, 0.0]), np.array([1, 1, 0]), np.array([0, 3])), shape=(1, 3))
    found = as_csr(matrix)
    assert found.nnz == 1
    np.testing.assert_array_equal(found.toarray(), [[0, 3, 0]])


def test_broken_structure_is_refused_before_it_is_used():
    matrix = sp.csr_matrix(poisson().astype(np.float32))
    matrix.indices[3] = 10_000
    with pytest.raises(ValueError, match="indices"):
        as_csr(matrix)


@pytest.mark.parametrize("matrix", [np.array([["1", "2"]]), np.array([[1j]]), np.array([[None]]), {"a": 1}])
def test_what_is_no_matrix_of_numbers_is_refused(matrix):
    with pytest.raises(ValueError, match="no matrix of numbers"):
        as_csr(matrix)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.nan, "1 values that are not finite (such as nan)"),
        (np.inf, "not finite (such as inf)"),
        (-1.0, "negative values (such as -1"),
        (0.5, "no integers (such as 0.5"),
        (2.0**24 + 2, "16777218"),
    ],
)
def test_one_wrong_value_is_found_and_named(value, said):
    matrix = poisson().astype(np.float64)
    matrix[7, 9] = value
    assert said in str(judge(as_csr(matrix)).problem)


def test_all_zero_is_no_data():
    assert "no value above 0" in str(judge(as_csr(np.zeros((4, 4)))).problem)


def test_integers_that_float32_cannot_hold_are_not_rounded_in_silence():
    matrix = poisson().astype(np.int64)
    matrix[0, 0] = 2**24 + 1
    assert "16777217" in str(judge(as_csr(matrix)).problem)


@pytest.mark.parametrize("total", [1e4, 1e6, 500])
def test_log1p_is_recognised_by_its_total_and_restored_exactly(total):
    counts = poisson(mean=1.0)
    found = logged(counts, total)
    message = str(judge(found).problem)
    assert f"log1p of counts normalised to {total:,.0f}" in message
    assert "a.layers['counts'].copy()" in str(judge(found, lambda: "X").problem)
    assert "a.layers['counts']" not in message
    assert "data.restore_counts=true" in message
    restored = restore(found)
    assert restored.exact.all()
    np.testing.assert_array_equal(restored.counts.toarray(), counts)


def test_log1p_is_recognised_after_genes_were_chosen():
    counts = poisson(genes=200, mean=1.0)
    found = as_csr(logged(counts)[:, :60])
    assert normalised_to(found) is None
    assert "log1p of counts normalised to one total" in str(judge(found).problem)
    np.testing.assert_array_equal(restore(found).counts.toarray(), counts[:, :60])


def test_cells_whose_smallest_count_is_not_one_are_refused():
    counts = poisson(mean=1.0)
    counts[4] = np.where(counts[4] > 0, counts[4] + 1, 0)  # 2, 3, 4 ...: the ratios are no integers
    found = logged(counts)
    assert restore(found).exact.sum() == len(counts) - 1
    assert "not exact for 1 of 40 cells" in str(judge(found).problem)


def test_cells_with_too_few_genes_to_tell_are_refused():
    counts = poisson(mean=1.0)
    counts[4] = 0
    counts[4, :3] = 2  # would come back as 1, 1, 1
    assert not restore(logged(counts)).exact[4]


def test_a_broken_value_is_not_restored():
    found = logged(poisson(mean=1.0))
    found.data[5] *= 1.01
    assert restore(found).exact.sum() == 39


def test_fractions_that_are_no_logarithms_are_not_called_so():
    matrix = np.random.default_rng(0).gamma(2, 2, size=(40, 50))
    message = str(judge(as_csr(matrix)).problem)
    assert "log1p" not in message
    assert "99.9%" in message
    assert "log1p" not in str(judge(as_csr(matrix * 1000)).problem)


def test_scanpy_makes_the_aliased_layer_that_is_recognised():
    scanpy = pytest.importorskip("scanpy")
    counts = poisson(mean=1.0).astype(np.float32)
    cells = anndata.AnnData(counts.copy(), layers={"counts": sp.csr_matrix(counts)})
    cells.X = cells.layers["counts"]
    scanpy.pp.normalize_total(cells, target_sum=1e4)
    scanpy.pp.log1p(cells)
    found = as_csr(cells.layers["counts"])
    assert "normalised to 10,000" in str(judge(found).problem)
    np.testing.assert_array_equal(restore(found).counts.toarray(), counts)
