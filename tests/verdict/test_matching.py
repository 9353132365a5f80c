"""Matched twins: as few cells as the smallest query, as shallow as the shallowest; and what is left between them."""

from pathlib import Path

import numpy as np
import pytest

from study.cells.prepared import Cells
from study.cells.sources import query_names
from study.cells.twins import prepare
from study.config.composition import compose, validate
from study.config.study import StudyConfig
from study.config.values import dump
from study.errors import InputError
from study.plan.tree import Plan, plan_study
from study.trials.record import Result
from study.verdict.matching import matched_spread
from tests.made import FINE, some_result

QUERIES = {
    "large": {},
    "small": {"of": ["4", "5"]},
    "large both": {"match_size": True, "match_depth": True},
    "small both": {"of": ["4", "5"], "match_size": True, "match_depth": True},
    "large size": {"match_size": True},
}


def study() -> StudyConfig:
    values = dump(compose(FINE))
    values["data"]["queries"] = QUERIES
    levels = ["large", "small", "large both", "small both"]
    values["space"] |= {"factors": {"query": {"levels": levels}}, "replicates": 3}
    return validate(values)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cells]:
    return prepare(study().data, tuple(QUERIES), tmp_path_factory.mktemp("counts"))


def depth(cells: Cells) -> float:
    return float(cells.counts[cells.n_reference :].sum(axis=1).mean())


def test_matched_queries_have_one_size_and_one_depth(cells: dict[str, Cells]) -> None:
    small = cells["small"].n_query
    assert cells["large"].n_query == 431 > small
    assert {name: cells[name].n_query for name in ("large both", "small both", "large size")} == {
        "large both": small,
        "small both": small,
        "large size": small,
    }
    shallowest = min(depth(cells["large"]), depth(cells["small"]))
    for name in ("large both", "small both"):
        assert depth(cells[name]) == pytest.approx(shallowest, rel=0.05), "but for which cells were taken"
    assert cells["large size"].digest() == cells["large"].first(small).digest(), "the first cells, as query_cells takes"
    unchanged = "small both" if depth(cells["small"]) < depth(cells["large"]) else "large both"
    plain = cells[unchanged.removesuffix(" both")].first(small)
    assert (cells[unchanged].counts != plain.counts).nnz == 0, "the shallowest is not thinned"


def test_a_matched_query_follows_the_others(tmp_path: Path, cells: dict[str, Cells]) -> None:
    data = study().data
    fewer = data.queries["small both"].model_copy(update={"of": "4"})
    changed = data.model_copy(update={"queries": {**data.queries, "small both": fewer}})
    again, other = (prepare(one, ("large both",), tmp_path)["large both"] for one in (data, changed))
    assert again.digest() == cells["large both"].digest()
    assert other.n_query < again.n_query


def test_two_ways_to_set_the_depth_are_refused() -> None:
    with pytest.raises(InputError, match="'thin' and 'match_depth'"):
        compose([*FINE, "data.queries.shallow.match_depth=true"])


def made(cells: dict[str, Cells]) -> Plan:
    config = study()
    return plan_study(config, cells, query_names(config.data))


def results_of(planned: Plan, values: dict[str, list[float]]) -> dict[str, Result]:
    found = {}
    for trial in planned.trials:
        recall = values[trial.condition.query][trial.replicate.index]
        metrics = {"heldout/macro_recall": recall, "heldout/recall/A": recall, "heldout/precision/A": 0.1}
        found[trial.key] = some_result(key=trial.key, metrics=metrics)
    return found


def test_what_survives_matching_is_told_from_chance(cells: dict[str, Cells]) -> None:
    planned = made(cells)
    values = {
        "large": [0.90, 0.80, 0.91],
        "small": [0.70, 0.60, 0.69],  # 20 points less, but for chance
        "large both": [0.90, 0.80, 0.90],
        "small both": [0.91, 0.79, 0.90],  # nothing is left
    }
    table = matched_spread(study().data.queries, planned, results_of(planned, values))
    assert set(table["metric"]) == {"heldout/macro_recall", "heldout/recall/A"}
    before, after = table[table["metric"] == "heldout/macro_recall"].itertuples(index=False)
    assert before.queries == "as they are (those matched in size and depth)"
    assert (before.compared, before.replicates) == (2, 3)
    gaps = 100 * (np.array(values["large"]) - np.array(values["small"]))
    expected = np.sqrt(gaps.mean() ** 2 / 2 - gaps.var(ddof=1) / 2 / 3)
    assert before.sd == pytest.approx(expected)
    assert before.chance == pytest.approx(np.sqrt(gaps.var(ddof=1) / 2))
    assert (after.queries, after.sd) == ("matched in size and depth", 0)


def test_without_twins_or_replicates_there_is_no_table(cells: dict[str, Cells]) -> None:
    planned = made(cells)
    found = results_of(planned, {name: [0.9, 0.8, 0.7] for name in QUERIES})
    assert matched_spread(compose(FINE).data.queries, planned, found).empty
    first = {t.key: found[t.key] for t in planned.trials if t.replicate.index == 0}
    assert matched_spread(study().data.queries, planned, first).empty
    assert matched_spread(study().data.queries, planned, {}).empty
