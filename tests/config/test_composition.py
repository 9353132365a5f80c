"""Configuration: what composes, what is refused, and with which words."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.config.composition import compose, load, load_stored, validate
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
        (["scanvi.linear_classifier=3"], ["scanvi.linear_classifier", "true or false"]),
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
        # where a key belongs
        (["max_epochs=3"], ["max_epochs: is no known key. Did you mean 'scvi.max_epochs' or 'scanvi.max_epochs'?"]),
        (["scanvi.n_hidden=3"], ["Did you mean 'scvi.n_hidden' or 'scanvi.extra."]),
        (["space.replicates={seed: 2, folds: 3}"], ["space.replicates.seed", "Did you mean 'seeds'?"]),
        (["data.queries.asis.thinn=1"], ["data.queries.asis.thinn", "Did you mean 'thin'?"]),
        (["tracking.x=1"], ["tracking.x: is no known key. Known there: uri, directory, port."]),
        # what Hydra cannot read
        (['data.queries={"x y": {of: "4"}}'], ["cannot be read", "data.queries={a b: {of: c}}", "no quotes", "conf/"]),
        (["outcomes=[heldout/recall"], ["cannot be read", 'outcomes=[a, "b, c"]', "quote"]),
        (["name=étude"], ["'name=étude' cannot be read", 'name="a, b"']),
        (["data.genes=1,000"], ["'data.genes=1,000' has several values", "key=[a, b]"]),
        (["scvi.n_latent=choice(1, 2)"], ["several values", "a factor", "search_spaces/"]),
        (["data.queries.x y.of=4"], ["'data.queries.x y.of' is no key", "data.queries={a b: {of: a}}"]),
        (["scvi:n_latent=4"], ["'scvi:n_latent' is no key", "dots between"]),
        (["data=[forum]"], ["no data '[forum]'", "Did you mean 'forum'?", "Found: forum, pbmc68k"]),
        (["~data"], ["a study needs 'data'", "data=..."]),
        (["scvi=[1]"], ["scvi=[1]", "a mapping", "one of its keys"]),
        (["scvi.n_latent=${scvi.n_latent}"], ["scvi.n_latent: Recursive", "Write the value itself"]),
        # what would be merged away in silence
        (["data.queries={}"], ["data.queries={}", "changes nothing", "'asis'", "'~data.queries.asis'"]),
        # levels and ranges
        (
            ["space.factors.budget=[epochs, steps]"],
            ["space.factors.budget", "'levels: [...]'", "found [epochs, steps]"],
        ),
        (["space.factors.query.levels=asis"], ["space.factors.query.levels", "a list", "found 'asis'"]),
        (
            ["space.factors.query.levels=[asis,null]"],
            ["levels.1: a level is a finite number, text, true", "found null"],
        ),
        (["space.factors.query_cells.levels=[nan,3]"], ["levels.0: a level is a finite number", "found nan"]),
        (["space.factors.query_cells.low=3"], ["space.factors.query_cells", "both"]),
        (["root=[a]"], ["root: Input is not a valid path, found [a]."]),
    ],
)
def test_bad_overrides_are_refused_by_name(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        compose(overrides)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize("overrides", ["space=queries", None, 5, [1], {"space": "queries"}, ["space=queries", None]])
def test_what_is_no_list_of_texts_is_refused(overrides: Any, tmp_path: Path) -> None:
    """A single text above all: each of its letters would be an override."""
    for call in (compose, lambda given: load(tmp_path / "best.yaml", given)):
        with pytest.raises(InputError, match=f"expected a list of texts.*found {re.escape(repr(overrides))}"):
            call(overrides)


def test_a_plus_may_stand_before_any_key_and_quotes_around_any_file() -> None:
    assert compose(["+scvi.n_latent=7", "++space='queries'"]) == compose(["scvi.n_latent=7", "space=queries"])


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
    changed = load(
        path,
        [
            "scvi.extra.latent_distribution=ln",
            "data.queries={asis: {thin: 0.5}, new: {of: b}}",
            "outcomes=[train/recall]",
        ],
    )
    assert (changed.scvi.n_latent, changed.outcomes) == (7, ("train/recall",))
    assert changed.scvi.extra.latent_distribution == "ln"
    assert changed.data.queries.keys() == {*config.data.queries, "new"}
    assert changed.data.queries["asis"].thin == 0.5


def test_what_is_stored_is_meant_as_it_stands(tmp_path: Path) -> None:
    """Names of somebody's data may look like what Hydra would resolve, whole or broken."""
    names = ("${name}", "${nowhere}", "${oc.env:HOME}", "${", "???", "\\${x}", "Zellen Ω")
    values = dump(compose(["name=mine"]))
    values["data"] |= {"name": "${data.name}", "queries": {name: {"of": name, "compose": {name: 1}} for name in names}}
    config = validate(values)
    path = tmp_path / "mine" / "config.yaml"
    path.parent.mkdir()
    for unicode in (False, True):
        path.write_bytes(yaml.safe_dump(dump(config), allow_unicode=unicode).encode())
        assert load_stored("mine", tmp_path) == config.model_copy(update={"root": tmp_path})
        assert load(path, ["query_cells=9"]) == config.model_copy(update={"query_cells": 9})


@pytest.mark.parametrize(
    "overrides",
    [
        ["resources.gpus=1", "resources=gpu_node", "++scvi.n_latent=8"],
        ["data=forum", "data.path=tau.h5ad", "data.queries={d: {of: 1244, thin: 0.5}}", "resources=laptop"],
        [
            "model=forum",
            "+scanvi.extra.var_activation='relu'",
            "space=search",
            "tracking=server",
            "~scvi.extra",
            "resources=cluster",
        ],
    ],
)
def test_a_file_takes_the_overrides_that_conf_takes(tmp_path: Path, overrides: list[str]) -> None:
    """Groups too: what the file says there is gone, and no twin of other data is left over."""
    path = tmp_path / "whole.yaml"
    path.write_text(yaml.safe_dump(dump(compose(["name=other", "resources.cpus=3"]))))
    assert load(path, overrides) == compose(["name=other", *overrides])


@pytest.mark.parametrize("content", ["", "- a list", "a: [", "scvi: 3", "!!python/object/apply:os.system ['true']"])
def test_a_broken_configuration_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"broken\.yaml"):
        load(path)
