"""Runs that somebody has: a cause is blamed only where they can tell it apart, and hardly ever by chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from study.diagnosis.together import compare_runs
from study.errors import InputError


def drawn(seed: int, collapses: float = 0.0) -> pd.DataFrame:
    """5 to 40 runs whose settings differ in any confounded way, and none of which does anything."""
    random = np.random.default_rng(seed)
    n = int(random.integers(5, 41))
    columns: dict[str, Any] = {"seed": list(range(n))}
    for at in range(int(random.integers(1, 6))):
        kind = random.integers(4)
        known = [name for name in columns if name != "seed"]
        if kind == 0 and known:  # another name for what is there, or nested in it
            source = columns[known[int(random.integers(len(known)))]]
            columns[f"c{at}"] = [f"{one}-{int(random.integers(2)) if random.random() < 0.5 else 0}" for one in source]
        elif kind == 1:
            columns[f"c{at}"] = random.choice([10, 20, 40, 80, 160, 320, 640, 1000], n).tolist()
        else:
            columns[f"c{at}"] = random.choice(list("abcd")[: int(random.integers(2, 5))], n).tolist()
    spread = random.uniform(0, 0.6)
    for name in "xyz"[: int(random.integers(1, 4))]:
        logit = np.log(1 / random.uniform(0.02, 0.5) - 1) + random.normal(0, spread, n)
        recall = 1 / (1 + np.exp(-logit)) - 0.3 * (random.random(n) < collapses)
        cells = int(random.integers(30, 500))
        columns[f"recall/{name}"] = random.binomial(cells, np.clip(recall, 0, 1)) / cells
    return pd.DataFrame(columns)


@pytest.mark.parametrize("collapses", [0.0, 0.05])
def test_nothing_is_blamed_where_nothing_acts(collapses: float) -> None:
    blamed = [
        any(one.real for cause in compare_runs(drawn(seed, collapses)).causes for one in cause.explained)
        for seed in range(500)
    ]
    assert np.mean(blamed) < 0.05


def crossed(effect: float, seed: int = 0) -> pd.DataFrame:
    """Two queries with two classifiers, three seeds each; the classifier acts on one class."""
    random = np.random.default_rng(seed)
    rows = [
        {"query": query, "query_cells": {"q1": 100, "q2": 900}[query], "classifier": kind, "seed": at,
         "recall/B": 0.8 + effect * (kind == "mlp") + random.normal(0, 0.01), "recall/T": 0.7 + random.normal(0, 0.01)}
        for query in ("q1", "q2") for kind in ("linear", "mlp") for at in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_what_acts_is_found_and_what_goes_with_it_is_one_cause() -> None:
    found = compare_runs(crossed(0.1))
    causes = {cause.columns: cause for cause in found.causes}
    assert set(causes) == {("query", "query_cells"), ("classifier",)}, "a query and its size cannot be told apart"
    told = {one.outcome: one for one in causes[("classifier",)].explained}
    assert told["recall/B"].real and not told["recall/T"].real
    assert 0 < told["recall/B"].lower < told["recall/B"].share < told["recall/B"].upper < 1
    assert not any(one.real for one in causes[("query", "query_cells")].explained)
    said = " ".join(found.sentences)
    assert (
        "classifier: a real effect on recall/B" in said
        and "query = query_cells: no effect stands out from chance (if causes add up" in said
    )


def test_one_run_a_query_tells_nothing() -> None:
    """The thread: three queries, one run each."""
    table = pd.DataFrame({"query": ["1", "2", "3"], "steps": [5, 6, 7], "recall/a": [0.98, 0.88, 0.77]})
    found = compare_runs(table)
    assert found.left == 0 and not any(cause.explained for cause in found.causes)
    assert found.sentences[0].startswith("3 runs cannot tell: query = steps and chance are one.")


def test_what_is_confounded_is_named_and_never_estimated() -> None:
    table = crossed(0.1)
    second = table["query"] == "q2"
    table["site"] = np.where(~second, "x", np.where(table["classifier"] == "mlp", "y", "z"))
    found = {cause.columns[0]: cause for cause in compare_runs(table).causes}
    assert not found["query"].explained and found["query"].with_ == ("site",)
    assert not found["site"].explained and "query = query_cells" in found["site"].with_
    assert any(one.real for one in found["classifier"].explained), "within the first query it can be told"
    frame = compare_runs(table).to_frame().set_index("cause")
    assert frame.loc["site", "cannot be told apart from"] == "query = query_cells" and pd.isna(frame.loc["site", "p"])


def test_runs_that_differ_in_nothing_differ_by_chance_and_one_run_is_none() -> None:
    table = pd.DataFrame({"seed": [0, 1, 2], "layers": [2, 2, 2], "accuracy": [0.9, 0.8, 0.85]})
    assert compare_runs(table).sentences == [
        "3 runs differ in nothing that was recorded: what differs between them is chance."
    ]
    with pytest.raises(InputError, match="1 run: expected two"):
        compare_runs(table[:1])


def test_columns_are_what_they_are_called_and_never_what_they_are_not() -> None:
    table = crossed(0.1).assign(train_size=[0.8, 0.9] * 6, start_time=range(12), loss=np.linspace(1, 2, 12))
    table["Unnamed: 0"] = range(12)
    table["macro recall"] = [None, *[0.5] * 11]
    found = compare_runs(table)
    causes = {name for cause in found.causes for name in cause.columns}
    assert causes == {"query", "query_cells", "classifier", "train_size", "loss"}
    assert set(found.aside) == {"start_time", "Unnamed: 0", "macro recall"} and found.outcomes == (
        "recall/B",
        "recall/T",
    )
    assert {cause.columns: cause.line for cause in found.causes}[("loss",)]
    assert set(compare_runs(table, measured=["loss"]).outcomes) == {"loss", "recall/B", "recall/T"}


def test_repeats_that_are_equal_have_not_measured_chance() -> None:
    table = pd.DataFrame({"query": ["a", "b"] * 4, "recall/B": [0.5, 0.9] * 4, "seed": [0] * 8})
    found = compare_runs(table)
    assert found.exact == ("recall/B",) and not found.causes[0].explained
    assert "chance was not measured" in found.sentences[0] and len(found.sentences) == 1


def test_percentages_are_read_and_not_mixed_with_shares() -> None:
    table = crossed(0.1)
    percent = table.assign(**{"recall/B": [f"{100 * value:.3f}%" for value in table["recall/B"]]})
    (one,) = [cause for cause in compare_runs(percent).causes if cause.columns == ("classifier",)]
    assert one.explained[0].outcome == "recall/B" and one.explained[0].real
    mixed = table.assign(**{"recall/B": [*table["recall/B"][:6], *(100 * table["recall/B"][6:])]})
    with pytest.raises(InputError, match=r"recall/B: has values of up to 1 .* and larger ones"):
        compare_runs(mixed)
    with pytest.raises(InputError, match="not finite"):
        compare_runs(table.assign(**{"recall/B": [np.inf, *table["recall/B"][1:]]}))
