"""A refused command takes back what it wrote, and only that."""

from collections.abc import Callable
from pathlib import Path

import pytest
from anndata import AnnData

from study.cells.twins import prepare
from study.commands.refusal import nothing_left_if_refused
from study.config.data import DataConfig
from study.errors import InputError


def refused(config: DataConfig, directory: Path, meanwhile: Callable[[], object]) -> None:
    """Prepare cells for a command that is refused, while another process is at work."""
    with pytest.raises(InputError, match="no"), nothing_left_if_refused(directory) as wrote:
        prepare(config, ["q1"], directory / "counts", wrote)
        assert len(list(directory.glob("counts/*/cells.json"))) >= 1
        meanwhile()
        raise InputError("no")


def test_nothing_is_left(toy: AnnData, combined: Callable[..., DataConfig], tmp_path: Path) -> None:
    refused(combined(toy), tmp_path / "deep" / "studies" / "mine", lambda: None)
    assert [path.name for path in tmp_path.iterdir()] == ["toy.h5ad"]


def test_what_another_process_prepares_meanwhile_survives(
    toy: AnnData, combined: Callable[..., DataConfig], tmp_path: Path
) -> None:
    config, counts = combined(toy), tmp_path / "mine" / "counts"
    refused(config, counts.parent, lambda: prepare(config, ["q2"], counts))
    (left,) = counts.iterdir()
    assert prepare(config, ["q2"], counts, wrote=lambda _: pytest.fail("it was whole"))["q2"].n_query == 10
    assert list(counts.iterdir()) == [left]


def test_what_another_process_has_begun_to_use_survives(
    toy: AnnData, combined: Callable[..., DataConfig], tmp_path: Path
) -> None:
    config, counts = combined(toy), tmp_path / "mine" / "counts"
    refused(config, counts.parent, lambda: prepare(config, ["q1"], counts, lambda _: pytest.fail("it was whole")))
    assert prepare(config, ["q1"], counts, wrote=lambda _: pytest.fail("it was whole"))["q1"].n_query == 20


def test_what_was_there_before_survives(toy: AnnData, combined: Callable[..., DataConfig], tmp_path: Path) -> None:
    config = combined(toy)
    prepare(config, ["q1"], tmp_path / "mine" / "counts")
    before = sorted(tmp_path.rglob("*"))
    refused(config, tmp_path / "mine", lambda: None)
    assert sorted(tmp_path.rglob("*")) == before


def test_cells_of_trained_trials_survive(toy: AnnData, combined: Callable[..., DataConfig], tmp_path: Path) -> None:
    def train() -> None:
        (tmp_path / "mine" / "trials").mkdir()
        (tmp_path / "mine" / "trials" / "key.json").touch()

    refused(combined(toy), tmp_path / "mine", train)
    assert len(list(tmp_path.glob("mine/counts/*/cells.json"))) == 1
