"""A study as designed: what it refuses before any cell is prepared."""

from pathlib import Path

import pytest

from study.errors import InputError
from study.studies.study import open_study
from tests.made import study_of


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ("{scvi.extra.encode_covariate: {levels: [true, false]}}", ["'encode_covariate'", "Did you mean"]),
        ("{scvi.extra.n_layers: {levels: [1, 2]}}", ["'n_layers'", "set already"]),
        ("{scvi.extra.var_activation: {levels: [softplus, sofplus]}}", ["var_activation", "'sofplus'"]),
        ("{scanvi.extra.typo: {levels: [1, 2]}, scvi.n_latent: {levels: [4, 5]}}", ["scanvi.extra", "'typo'"]),
    ],
)
def test_an_extra_argument_that_a_factor_misspells_is_refused(factors: str, words: list[str], tmp_path: Path) -> None:
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
