"""Configuration: what composes, what is refused, and with which words."""

from pathlib import Path

import pytest
import yaml

from study.config.composition import compose, load
from study.config.values import dump
from study.errors import InputError


def test_defaults_compose() -> None:
    config = compose()
    assert config.name == "pbmc68k-default"
    assert config.space.factors.keys() == {
        "query",
        "query_cells",
        "scanvi.linear_classifier",
        "scanvi.n_samples_per_label",
        "scanvi.max_epochs",
    }
    assert config.directory.is_absolute()


def test_overrides_reach_their_place() -> None:
    config = compose(["data=forum", "data.path=tau.h5ad", "space=forum", "scvi.n_latent=30", "resources=gpu_node"])
    assert (config.data.dataset_key, config.data.layer, config.scvi.n_latent) == ("ds_ID", "counts", 30)
    assert config.space.name == "forum"
    assert config.resources.accelerator == "gpu"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["scvi.max_epoch=3"], ["scvi.max_epoch", "Did you mean 'max_epochs'?"]),
        (["scvi.max_epochs=many"], ["scvi.max_epochs", "'many'"]),
        (["scvi.max_epochs=0"], ["scvi.max_epochs", "greater than or equal to 1"]),
        (["scvi.max_epochs=-5"], ["scvi.max_epochs", "-5"]),
        (["scanvi.linear_classifier=3"], ["scanvi.linear_classifier", "boolean"]),
        (["space=defualt"], ["no search space 'defualt'", "Did you mean 'default'?"]),
        (["data=forum"], ["data.path"]),
        (["data=pbmc"], ["no data 'pbmc'", "Did you mean 'pbmc68k'?"]),
        (["name=a/b"], ["name", "'a/b'"]),
        (["name='a\nb'"], ["name"]),
        (["nonsense"], ["'nonsense'", "key=value"]),
        (["resources.gpus=1"], ["resources", "accelerator=cpu does not go with gpus=1"]),
        (["data.seed=4294967296"], ["data.seed", "4294967296"]),
        (["space.replicates=0"], ["space.replicates"]),
        (["space.factors.query.levels=[asis]"], ["space.factors.query", "at least 2 levels"]),
        (["space.factors.query.levels=[asis,asis]"], ["space.factors.query", "duplicate"]),
        (["space.factors.query.levels=[]"], ["space.factors.query", "at least 2 levels"]),
        (["space.design=random"], ["space", "points"]),
        (["outcomes=[heldout/recal]"], ["outcomes"]),
        (["data.queries.asis.thin=1.5"], ["data.queries.asis.thin", "1.5"]),
    ],
)
def test_bad_overrides_are_refused_by_name(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        compose(overrides)
    for word in words:
        assert word in str(refused.value)


def test_levels_are_checked_like_settings() -> None:
    config = compose()
    assert config.settings({"scvi.norm": "layer", "query_cells": 30}).scvi.norm == "layer"
    assert config.settings({"scanvi.extra.var_activation": "softplus"}).scanvi.extra.var_activation == "softplus"
    with pytest.raises(InputError, match=r"Did you mean 'scanvi\.max_epochs'"):
        config.settings({"scanvi.max_epoch": 3})
    with pytest.raises(InputError, match=r"scvi\.norm"):
        config.settings({"scvi.norm": "group"})


def test_a_dumped_configuration_loads_again(tmp_path: Path) -> None:
    config = compose(["scvi.n_latent=7"])
    path = tmp_path / "whole.yaml"
    path.write_text(yaml.safe_dump({**dump(config), "chosen": {"reason": "best"}}))
    assert load(path) == config
    assert load(path, ["scvi.n_latent=8"]).scvi.n_latent == 8


@pytest.mark.parametrize("content", ["", "- a list", "a: [", "scvi: 3", "!!python/object/apply:os.system ['true']"])
def test_a_broken_configuration_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"broken\.yaml"):
        load(path)
