"""What nobody thought of: configurations, search spaces, class names, tables and files at random.

The same examples in every run (`derandomize`), so that a failure is a change of the code.
"""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, Phase, assume, example, given, settings
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

from study.attribution.attribute import attribute_study
from study.attribution.findings import Attribution
from study.cells.check import check_data
from study.cells.sources import query_names
from study.cells.twins import prepare
from study.config.composition import compose, load, validate
from study.config.data import DataConfig
from study.config.study import StudyConfig
from study.config.values import dump
from study.errors import InputError
from study.files import file_names
from study.plan.factors import Factor, strata
from study.plan.tree import plan_study
from study.plan.trials import replicates_of, trials_of
from study.tracking.slug import metric_name, slug
from tests.made import unslug


def bounded(examples: int) -> settings:
    """So many examples, however slow the machine is, and no search for smaller ones, which may take minutes."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


# --- configurations and search spaces

LEVELS: dict[str, st.SearchStrategy[Any]] = {
    "query": st.sampled_from(["asis", "shallow", "skewed", "none"]),
    "query_cells": st.one_of(st.just("all"), st.integers(2, 200)),
    "query_draw": st.integers(0, 3),
    "budget": st.sampled_from(["epochs", "steps"]),
    "scvi.n_latent": st.integers(1, 64),
    "scvi.dropout_rate": st.floats(0, 0.99),
    "scvi.norm": st.sampled_from(["batch", "layer", "none"]),
    "scvi.batch_size": st.integers(2, 512),
    "scvi.max_epochs": st.integers(1, 400),
    "scanvi.linear_classifier": st.booleans(),
    "scanvi.n_samples_per_label": st.one_of(st.just("all"), st.integers(1, 100)),
    "scanvi.max_epochs": st.integers(1, 100),
    "scanvi.classification_ratio": st.floats(0, 1e6),
    "scanvi.surgery_epochs": st.integers(1, 50),
}
RANGES = {"scvi.n_latent": ("randint", 2, 40), "scvi.dropout_rate": ("uniform", 0.0, 0.5)}


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, Any]:
    """A valid search space."""
    names = draw(st.lists(st.sampled_from(sorted(LEVELS)), min_size=1, max_size=3, unique=True))
    factors: dict[str, Any] = {
        name: {"levels": draw(st.lists(LEVELS[name], min_size=2, max_size=3, unique=True))} for name in names
    }
    space: dict[str, Any] = {"name": "drawn", "design": "factorial", "folds": draw(st.integers(2, 5))}
    if draw(st.booleans()):
        space |= {"design": "random", "points": draw(st.integers(1, 6))}
        for name in draw(st.lists(st.sampled_from(sorted(RANGES)), unique=True)):
            kind, low, high = RANGES[name]
            factors[name] = {"type": kind, "low": low, "high": high}
    crossed = {"seeds": draw(st.integers(1, 3)), "folds": draw(st.integers(2, 3))}
    replicates = draw(st.one_of(st.integers(1, 7), st.just(crossed)))
    return {**space, "factors": factors, "replicates": replicates}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any]:
    """The default configuration as plain values, and its prepared cells."""
    config = compose()
    names = query_names(config.data)
    return dump(config), prepare(config.data, names, tmp_path_factory.mktemp("cells"))


def count(factors: dict[str, Any]) -> int:
    return math.prod(len(factor["levels"]) for factor in factors.values())


@bounded(60)
@given(space=spaces())
def test_a_valid_design_is_planned(base: tuple[dict[str, Any], Any], space: dict[str, Any]) -> None:
    values, cells = base
    config = validate({**values, "space": space})
    assert validate(dump(config)) == config
    queries = query_names(config.data)
    points = space.get("points") or count(space["factors"])
    ranges = any("levels" not in factor for factor in space["factors"].values())
    if not ranges and points > count(space["factors"]):
        with pytest.raises(InputError, match="design points wanted"):
            trials_of(config, queries)
        return
    trials = trials_of(config, queries)
    assert len(trials) == points * len(replicates_of(config.space))
    try:
        made = plan_study(config, cells, queries)
    except InputError as refused:
        # Levels that are valid one by one may be the same trial (as budget is where all sizes are equal).
        assert "same trial" in str(refused) or "cells of query" in str(refused)
        return
    assert len({trial.key for trial in made.trials}) == len(trials)
    # Every trial is read from exactly one stage, at an epoch that the stage trains.
    for trial in made.trials:
        stage, epoch = trial.chain[-1]
        assert made.stage_by_key[stage].trials[epoch] == trial.key
        assert epoch in made.stage_by_key[stage].epochs
    assert made.steps_shared <= made.steps_separate
    again = plan_study(config, cells, queries)
    assert [trial.key for trial in again.trials] == [trial.key for trial in made.trials]
    assert plan_study(config, cells, queries).missing(made.all_by_key, []) == ()


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=12),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


def places(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a value could be replaced."""
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [path] * bool(path) + [place for key, value in inner for place in places(value, (*path, key))]


def replaced(values: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(values) if isinstance(values, dict) else list(values)
    copy[path[0]] = replaced(values[path[0]], path[1:], value)
    return copy


@bounded(400)
@given(data=st.data(), value=JUNK)
def test_a_broken_configuration_is_refused_by_name_or_means_something(
    base: tuple[dict[str, Any], Any], data: st.DataObject, value: Any
) -> None:
    values, _ = base
    path = data.draw(st.sampled_from(places(values)))
    try:
        config = validate(replaced(values, path, value))
    except InputError as refused:
        assert str(path[0]) in str(refused)
        return
    assert isinstance(config, StudyConfig)
    assert validate(dump(config)) == config, "what is accepted is written and read as the same"
    try:
        trials = trials_of(config, ("asis", "shallow", "self", "none"))
    except InputError:
        return
    assert trials


@bounded(100)
@given(key=st.text(st.characters(codec="ascii"), max_size=12), value=st.text(max_size=12))
@example(key="data", value="null")
@example(key="data", value="3")
@example(key="space", value="")
@example(key="", value="3")
@example(key="~data", value="")
@example(key="scvi.n_latent", value="${scvi.n_latent}")
@example(key="name", value="${")
@example(key="name", value="???")
def test_an_override_of_any_text_composes_or_is_refused(tmp_path: Path, key: str, value: str) -> None:
    whole = tmp_path / "whole.yaml"
    if not whole.exists():
        whole.write_text(yaml.safe_dump(dump(compose())))
    for read in (compose, lambda overrides: load(whole, overrides)):
        try:
            read([f"{key}={value}"])
        except InputError as refused:
            assert str(refused)


# --- class names in MLflow

CLOSE = st.text(st.sampled_from("+-:/. 2BAé🧬%\n"), min_size=1, max_size=8)
NAMES = st.one_of(st.text(min_size=1, max_size=60), CLOSE)


@bounded(500)
@given(names=st.lists(NAMES, min_size=2, max_size=4, unique=True))
def test_class_names_in_mlflow_come_back_and_stay_apart(names: list[str]) -> None:
    assert [unslug(slug(name)) for name in names] == names
    assert len({slug(name) for name in names}) == len(names)
    for name in names:
        _validate_metric_name(metric_name(f"heldout/precision/{name}"))


@bounded(100)
@given(start=st.text(min_size=1, max_size=5), first=st.integers(30, 400), second=st.integers(30, 400))
def test_long_class_names_stay_apart(start: str, first: int, second: int) -> None:
    assume(first != second)
    one, other = start * first, start * second
    assert slug(one) != slug(other)
    for name in (one, other):
        assert len(metric_name(f"heldout/precision/{name}")) <= 250
        _validate_metric_name(metric_name(f"heldout/precision/{name}"))


# --- files that are called by the names of queries


@bounded(300)
@given(names=st.lists(st.one_of(NAMES, st.text(st.sampled_from("aA./_-"), max_size=90)), max_size=5, unique=True))
@example(names=["", ".", "..", "/etc/passwd", "../../it", "x/y", "C:\\x", "\0", "x" * 300, "字" * 100])
@example(names=["tau", "Tau", "é", "e\u0301"])
@example(names=["a/b", file_names(["a/b"])["a/b"]])
def test_files_called_by_any_names_are_parts_of_a_path_and_stay_apart(names: list[str]) -> None:
    found = file_names(names)
    assert list(found) == names
    assert len({name.casefold() for name in found.values()}) == len(names)
    for name in found.values():
        assert re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_-])?", name)
        assert len(name) <= 80
    assert file_names(["asis", "q1.b_2-c"]) == {"asis": "asis", "q1.b_2-c": "q1.b_2-c"}


# --- tables given to attribution

FACTORS = (
    Factor("query", ("a", "b", "c"), "data"),
    Factor("query_cells", (30, "all"), "data"),
    Factor("scvi.norm", ("batch", "layer"), "parameter"),
    Factor("scanvi.linear_classifier", (True, False), "parameter"),
    Factor("scanvi.max_epochs", (5, 10, 20), "parameter"),
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[pd.DataFrame, tuple[Factor, ...]]:
    """The trials of some classes: any counts, also none right, all right, none counted, some missing."""
    factors = tuple(draw(st.lists(st.sampled_from(FACTORS), min_size=1, max_size=3, unique_by=lambda f: f.name)))
    cells = list(itertools.product(*(factor.levels for factor in factors)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    replicates = draw(st.integers(1, 4))
    kinds = draw(st.lists(st.sampled_from(["any", "ends", "same", "few", "none", "effect"]), min_size=1, max_size=3))
    lost = draw(st.sampled_from([0.0, 0.0, 0.05, 0.5, 1.0]))
    rows = []
    for (number, kind), replicate, cell in itertools.product(enumerate(kinds), range(replicates), cells):
        total = {"few": 3, "none": int(random.integers(2)) * 50}.get(kind, int(random.integers(20, 500)))
        share = {
            "any": random.random(),
            "ends": float(random.integers(2)),
            "same": 1.0,
            "effect": 0.9 if cell[0] == factors[0].levels[0] else 0.5 + 0.01 * random.random(),
        }.get(kind, random.random())
        correct = math.nan if random.random() < lost else float(round(share * total))
        names = {factor.name: level for factor, level in zip(factors, cell, strict=True)}
        where = {"outcome": "heldout/recall", "class_name": f"class {number}"}
        rows.append(
            {**where, **names, "replicate": replicate, "seed": replicate, "fold": replicate, "correct": correct}
            | {"total": float(total)}
        )
    return pd.DataFrame(rows), factors


def attributed(table: pd.DataFrame, factors: Sequence[Factor]) -> dict[str, Attribution]:
    found = attribute_study(table, factors, strata(factors)).attributions
    return {one.class_name: one for one in found}


def numbers(one: Attribution) -> dict[str, float]:
    """Every number that is said of shares, chance, means and effects, by where it is said."""
    said: dict[str, float] = {}
    for part in (*one.shares, *one.chance, *one.means, *one.effects):
        values = vars(part)
        name = " ".join(str(value) for value in values.values() if not isinstance(value, float))
        said |= {f"{name} {key}": value for key, value in values.items() if isinstance(value, float)}
    return said


@bounded(30)
@given(drawn=tables(), order=st.randoms(use_true_random=False))
def test_any_table_is_attributed_or_refused_with_a_reason(
    drawn: tuple[pd.DataFrame, tuple[Factor, ...]], order: Any
) -> None:
    table, factors = drawn
    found = attributed(table, factors)
    assert found.keys() == set(table.class_name)
    rows = list(range(len(table)))
    order.shuffle(rows)
    shuffled = attributed(table.iloc[rows].reset_index(drop=True), factors)
    turned = tuple(replace(factor, levels=factor.levels[::-1]) for factor in factors)
    backwards = attributed(table, turned)
    for name, one in found.items():
        if one.method == "none":
            assert one.reason
            assert not one.shares
            assert not one.effects
            assert shuffled[name].reason == one.reason
            continue
        assert sum(share.share for share in one.shares) == pytest.approx(1, abs=1e-9)
        for share in (*one.shares, *one.chance):
            assert 0 <= share.lower <= share.upper <= 1 + 1e-12, "but for rounding"
            assert 0 <= share.share <= 1 + 1e-12
        said = numbers(one)
        assert all(math.isfinite(value) for value in said.values()), said
        for effect in one.effects:
            assert effect.lower <= effect.points <= effect.upper
            assert 0 <= effect.p <= effect.p_adjusted <= 1
        # What is said depends on no order of rows, and shares on no order of levels either.
        assert numbers(shuffled[name]) == pytest.approx(said, rel=1e-9, abs=1e-9)
        if one.method == "balanced":
            ours, theirs = ({s.group: (s.share, s.lower, s.upper) for s in o.shares} for o in (one, backwards[name]))
            for group, values in ours.items():
                assert theirs[group] == pytest.approx(values, rel=1e-6, abs=1e-9)


# --- bytes

NUMBERS = itertools.count()


@bounded(30)
@given(data=st.data())
def test_a_file_with_random_bytes_is_read_or_refused(
    toy: Any, combined: Any, tmp_path: Path, data: st.DataObject
) -> None:
    whole = tmp_path / "toy.h5ad"
    if not whole.exists():
        combined(toy)
    # A file of its own each time: what HDF5 cannot close it goes on reading, whatever is written there later.
    path = tmp_path / f"{next(NUMBERS)}.h5ad"
    changed = bytearray(whole.read_bytes())
    kind = data.draw(st.sampled_from(["flip", "flip", "flip", "zero", "cut", "repeat"]))
    at = data.draw(st.integers(0, len(changed) - 1))
    if kind == "flip":
        for position in [at, *data.draw(st.lists(st.integers(0, len(changed) - 1), max_size=7))]:
            changed[position] ^= data.draw(st.integers(1, 255))
    elif kind == "zero":
        changed[at : at + 64] = bytes(len(changed[at : at + 64]))
    elif kind == "cut":
        del changed[at:]
    else:
        changed[at:at] = changed[:at]
    path.write_bytes(changed)
    config = DataConfig.model_validate(
        {"name": "toy", "source": "combined", "path": path, "dataset_key": "ds", "reference_value": "ref"}
        | {"labels_key": "label", "truth_key": "label", "batch_key": "ds"}
    )
    try:
        report = check_data(config)
    except InputError as refused:
        assert str(path) in str(refused)
        return
    for problem in report.problems:
        assert problem
