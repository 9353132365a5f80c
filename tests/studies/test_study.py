"""A study as designed: what it refuses before any cell is prepared, and what it needs no data for."""

from collections.abc import Callable
from pathlib import Path

import pytest
from anndata import AnnData

from study.config.composition import validate
from study.config.data import DataConfig
from study.config.values import dump
from study.errors import InputError
from study.studies.study import open_study
from tests.made import study_of


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ("{scvi.extra.encode_covariate: {levels: [true, false]}}", ["Did you mean 'encode_covariates'"]),
        ("{scvi.extra.n_layers: {levels: [1, 2]}}", ["scvi.extra.n_layers", "Did you mean 'scvi.n_layers'"]),
        ("{scvi.extra.var_activation: {levels: [softplus, sofplus]}}", ["var_activation", "found 'sofplus'"]),
        ("{scvi.extra.log_variational: {levels: [true, 3]}}", ["log_variational", "true or false", "found 3"]),
        (
            "{scanvi.extra.typo: {levels: [1, 2]}, scvi.n_latent: {levels: [4, 5]}}",
            ["scanvi.extra.typo", "Known there"],
        ),
        ("{scanvi.extra.latent_distribution: {levels: [normal, ln]}}", ["'scvi.extra.latent_distribution'"]),
    ],
)
def test_an_extra_argument_that_no_model_takes_is_refused(factors: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        open_study(study_of(factors, f"root={tmp_path}"))
    for word in words:
        assert word in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_an_extra_argument_of_a_range_is_checked_too(tmp_path: Path) -> None:
    space = "{scvi.extra.typo: {type: uniform, low: 0, high: 1}}"
    with pytest.raises(InputError, match="typo"):
        open_study(study_of(space, f"root={tmp_path}", design="random", points=4))


def test_extra_arguments_that_scvi_tools_takes_vary(tmp_path: Path) -> None:
    config = study_of("{scvi.extra.var_activation: {levels: [softplus, relu]}}", f"root={tmp_path}", replicates=1)
    assert len(open_study(config).plan.trials) == 2


def test_a_study_opens_where_its_data_are_gone(
    toy: AnnData, combined: Callable[..., DataConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the cells that it kept, wherever it was moved to; other data and a query never made are still asked for."""
    config = study_of("{query: {levels: all}}", f"root={tmp_path / 'studies'}", folds=2)
    config = validate({**dump(config), "data": dump(combined(toy))})
    before = open_study(config)
    (tmp_path / "studies").rename(tmp_path / "moved")
    Path(str(config.data.path)).unlink()
    moved = config.model_copy(update={"root": tmp_path / "moved"})
    after = open_study(moved)
    assert f"{config.data.path}: not there any more. The cells that were made of it are used." in caplog.text
    assert (after.queries, after.plan) == (before.queries, before.plan)
    for name, cells in before.cells.items():
        assert after.cells[name].digest() == cells.digest()
    for changes in ({"path": str(tmp_path / "typo.h5ad")}, {"queries": {"new": {"of": "q1", "thin": 0.5}, "q2": {}}}):
        other = validate({**dump(moved), "data": {**dump(moved.data), **changes}})
        with pytest.raises(InputError, match="no such file"):
            open_study(other)
