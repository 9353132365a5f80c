"""Flips: by hand, on a reference of six cells."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from study.cells.chunks import assemble
from study.cells.prepared import Cells
from study.plan.tree import Plan
from study.report.charts import flip_chart, flip_tables
from study.trials.record import Predictions, Result
from study.verdict.flips import ANY, REPLICATE, Flips, find_flips
from tests.made import planned, some_result

# Six reference cells of classes a and b, in two batches.
LABELS = np.array([0, 0, 0, 1, 1, 1], dtype=np.int32)


@pytest.fixture
def cells() -> Cells:
    counts = sp.csr_matrix(np.ones((6, 2), dtype=np.float32))
    return Cells(
        counts=assemble(counts.data, counts.indices, counts.indptr, 2),
        genes=np.array(["g1", "g2"]),
        classes=("a", "b"),
        labels=LABELS,
        truth=np.array([], dtype=np.int32),
        truth_classes=("a", "b"),
        batches=("one", "two"),
        batch=np.array([0, 0, 1, 1, 1, 1], dtype=np.int32),
        names=np.array([f"cell {i}" for i in range(6)]),
        origin=np.array([], dtype=np.int64),
    )


def predictions(called: str, held_out: list[int]) -> Predictions:
    probabilities = np.eye(2, dtype=np.float32)[["ab".index(letter) for letter in called]]
    none = np.array([], dtype=np.float32)
    return Predictions(probabilities, none.astype(np.uint16), none, np.array(held_out))


def flips_of(made: Plan, called: Mapping[str, Predictions], cells: Cells) -> Flips | None:
    results: dict[str, Result] = {key: some_result(key=key) for key in called}
    return find_flips(made, results, called.__getitem__, cells)


@pytest.fixture
def two_by_two(cells: Cells) -> Flips:
    """Two queries, two settings, two replicates; cell 0 is held out in the first, cell 1 in the second."""
    made = planned("{query: {levels: [asis, shallow]}, scvi.n_latent: {levels: [4, 5]}}", replicates=2)
    order = [(t.replicate.index, t.levels["query"], t.levels["scvi.n_latent"]) for t in made.trials]
    called = {
        (0, "asis", 4): "aaabbb",
        (0, "shallow", 4): "baabbb",  # the held-out cell 0 flips
        (0, "asis", 5): "aaabbb",
        (0, "shallow", 5): "baabba",  # again, and the training cell 5
        (1, "asis", 4): "aaabba",  # against the first replicate, cell 5 is another
        (1, "shallow", 4): "aaabba",
        (1, "asis", 5): "aaabbb",
        (1, "shallow", 5): "aaabbb",
    }
    found = {t.key: predictions(called[at], [at[0]]) for t, at in zip(made.trials, order, strict=True)}
    flips = flips_of(made, found, cells)
    assert flips is not None
    return flips


def test_each_flip_is_counted_by_cell_part_and_change(two_by_two: Flips) -> None:
    assert two_by_two.baseline == "query=asis"
    mine = two_by_two.cells[two_by_two.cells.condition == "query=shallow"]
    assert mine.drop(columns=["baseline", "condition"]).to_numpy().tolist() == [
        ["cell 0", "one", "a", "held-out", "a", "b", 2, 2],
        ["cell 5", "two", "b", "training", "b", "a", 1, 4],
    ]


def test_flips_between_replicates_stand_beside(two_by_two: Flips) -> None:
    again = two_by_two.cells[two_by_two.cells.condition == REPLICATE]
    assert again[["cell", "part", "from", "to", "flips", "compared"]].to_numpy().tolist() == [
        ["cell 5", "training", "b", "a", 1, 2]
    ]
    compared = two_by_two.rates.query("condition == @REPLICATE and grouping == 'all'")
    assert compared[["part", "cells", "compared"]].to_numpy().tolist() == [["training", 4, 8]], "not the held-out ones"


def test_rates_by_class_and_batch_add_up(two_by_two: Flips) -> None:
    rates = two_by_two.rates.query("condition == 'query=shallow'").set_index(["grouping", "name", "part"]).sort_index()
    assert rates.loc[("all", "", "held-out"), ["cells", "ever", "flips", "compared"]].tolist() == [2, 0.5, 2, 4]
    assert rates.loc[("all", "", "training"), ["cells", "flips", "compared", "rate"]].tolist() == [6, 1, 20, 1 / 20]
    assert rates.loc[("class", "b", "training"), "ever"] == pytest.approx(1 / 3)
    assert rates.loc[("batch", "one", "held-out"), "rate"] == 0.5
    for grouping in ("class", "batch"):
        for column in ("flips", "compared"):
            assert rates.loc[grouping, column].sum() == rates.loc["all", column].sum()
    assert ANY not in set(two_by_two.rates.condition), "one other condition needs no summary"


def test_transitions_are_sums_over_cells(two_by_two: Flips) -> None:
    top = two_by_two.transitions.iloc[0]
    assert (top["part"], top["from"], top["to"], top["flips"], top["cells"]) == ("held-out", "a", "b", 2, 1)
    total = two_by_two.cells.groupby("condition").flips.sum()
    assert total.equals(two_by_two.transitions.groupby("condition").flips.sum())


def test_the_report_shows_the_numbers_of_the_tables(two_by_two: Flips) -> None:
    chart = flip_chart(two_by_two)
    assert chart["names"] == ["all cells", "a", "b"]
    assert chart["series"][0] == {"name": "held-out cells", "values": [50.0, 50.0, None]}
    (_, by_class), (_, by_batch), (_, top) = flip_tables(two_by_two)
    assert by_class["training: flips per comparison"].tolist() == ["5.0%", "0.0%", "8.3%"]
    assert by_class["beside: between replicates, training"].tolist() == ["12.5%", "0.0%", "16.7%"]
    assert by_batch["batch"].tolist() == ["all cells", "one", "two"]
    assert set(top["condition"]) == {"query=shallow"}
    assert flip_chart(None)["names"] == []


def test_several_conditions_have_a_summary_over_any_of_them(cells: Cells) -> None:
    made = planned("{query: {levels: [asis, shallow]}, query_cells: {levels: [30, all]}}", replicates=1)
    called = ("aaabbb", "aaabba", "aaabba", "baabbb")
    found = {t.key: predictions(word, [0]) for t, word in zip(made.trials, called, strict=True)}
    flips = flips_of(made, found, cells)
    assert flips is not None and flips.baseline == "query=asis, query_cells=30"
    every = flips.rates.query("condition == @ANY and grouping == 'all'").set_index("part")
    assert every.loc["training", ["cells", "ever", "flips", "compared"]].tolist() == [5, 0.2, 2, 15]
    assert every.loc["held-out", ["cells", "ever", "flips", "compared"]].tolist() == [1, 1.0, 1, 3]


def test_cells_without_a_label_are_not_compared(cells: Cells) -> None:
    made = planned("{query: {levels: [asis, shallow]}}", replicates=2)
    cells = replace(cells, labels=np.array([0, 0, 0, 1, 1, -1], dtype=np.int32))
    called = ("aaabbb", "aaabba", "aaabba", "aaabaa")
    found = {t.key: predictions(word, [0]) for t, word in zip(made.trials, called, strict=True)}
    flips = flips_of(made, found, cells)
    assert flips is not None and flips.cells["cell"].tolist() == ["cell 4"]
    every = flips.rates.query("condition == 'query=shallow' and grouping == 'all' and part == 'training'")
    assert every[["cells", "flips", "compared"]].to_numpy().tolist() == [[4, 1, 8]]
    again = flips.rates.query("condition == @REPLICATE and grouping == 'all'")
    assert again[["cells", "compared"]].to_numpy().tolist() == [[4, 4]]


def test_nothing_to_compare_is_no_table(cells: Cells) -> None:
    made = planned("{query: {levels: [asis, shallow]}, scvi.n_latent: {levels: [4, 5]}}", replicates=1)
    only_base = {t.key: predictions("aaabbb", [0]) for t in made.trials if t.levels["query"] == "asis"}
    assert flips_of(made, only_base, cells) is None
    settings = planned("{scvi.n_latent: {levels: [4, 5]}}", replicates=2)
    assert flips_of(settings, {t.key: predictions("aaabbb", [0]) for t in settings.trials}, cells) is None


def test_no_flip_at_all_is_an_empty_table(cells: Cells) -> None:
    made = planned("{query: {levels: [asis, shallow]}, scvi.n_latent: {levels: [4, 5]}}", replicates=1)
    flips = flips_of(made, {t.key: predictions("aaabbb", [0]) for t in made.trials}, cells)
    assert flips is not None and flips.cells.empty and flips.transitions.empty
    assert (flips.rates["ever"] == 0).all()
    assert all(isinstance(table, pd.DataFrame) for _, table in flip_tables(flips))
