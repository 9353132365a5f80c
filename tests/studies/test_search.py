"""A search: what it tries follows from results alone, in whole groups, and its winner is compared fairly."""

import json
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from markupsafe import escape
from scipy import stats

from study.cells.sources import query_names
from study.config.study import StudyConfig
from study.errors import InputError
from study.plan.condition import Conditions
from study.plan.factors import Levels
from study.plan.stages import Plan
from study.plan.trials import default_of, fresh_of, replicates_of, trials_of
from study.report.analysis import analyse, explain
from study.report.finished import Finished, read_finished
from study.report.page import render_report
from study.studies.candidates import AT_ONCE, Candidate, Group, mean_of_worst, replay
from study.studies.choice import choose_found
from study.studies.export import best_config
from study.studies.search import NOT_EXPLAINED, Search, compare_settings, follow_search
from study.studies.study import Study
from tests.made import pbmc, study_of

FACTORS = """
query: {levels: [asis, shallow]}
scvi.n_latent: {levels: [8, 10, 20]}
scanvi.classification_ratio: {type: loguniform, low: 5, high: 500}
scanvi.max_epochs: {type: randint, low: 5, high: 31}
"""


def config_of(factors: str = FACTORS, *overrides: str, **space: Any) -> StudyConfig:
    return study_of(
        factors, *overrides, **{"design": "search", "candidates": 12, "replicates": 3, "confirm": 3, **space}
    )


def quality(levels: Levels, index: int) -> Group:
    """Best at many epochs and a ratio of 50, with luck that depends on everything."""
    values = dict(levels)
    epochs, ratio = float(values["scanvi.max_epochs"]), float(values["scanvi.classification_ratio"])
    luck = np.random.default_rng([index, int(epochs), int(1000 * ratio), int(values["scvi.n_latent"])]).normal(
        0, 0.01, 2
    )
    good = 0.5 + 0.01 * epochs - 0.05 * abs(math.log10(ratio / 50))
    return {"query=asis": good + luck[0], "query=shallow": good - 0.1 + luck[1]}


def searched(config: StudyConfig, measure: Callable[[Levels, int], Group | None] = quality) -> list[Candidate]:
    return replay(config.space, default_of(config), measure)


def test_a_search_goes_on_from_any_results_and_ends_the_same() -> None:
    config = config_of()
    whole = searched(config)
    assert whole[0].levels == default_of(config)
    assert len({one.levels for one in whole}) == 12
    assert searched(config) == whole
    done: dict[tuple[Levels, int], Group] = {}
    asked: list[int] = []
    order = np.random.default_rng(0)
    while True:
        found = searched(config, lambda levels, index: done.get((levels, index)))
        asked.append(len(found))
        assert [one.levels for one in found] == [one.levels for one in whole][: len(found)]
        open_ones = [(one.levels, at) for one in found for at in range(one.wanted) if (one.levels, at) not in done]
        if not open_ones:
            break
        # Interrupted: some of what was called for is trained, in any order.
        for at in order.permutation(len(open_ones))[: order.integers(1, 4)]:
            done[open_ones[at]] = quality(*open_ones[at])
    assert found == whole
    assert asked == sorted(asked)
    assert len(done) == sum(len(one.groups) for one in whole), "nothing was trained that the whole search did not need"


def test_more_candidates_keep_the_first_ones() -> None:
    for few in (4, 6, 11):
        assert searched(config_of(candidates=12))[:few] == searched(config_of(candidates=few))


def test_candidates_are_pruned_between_groups_against_the_median_and_never_inside_one() -> None:
    calls: list[tuple[Levels, int]] = []

    def measure(levels: Levels, index: int) -> Group:
        calls.append((levels, index))
        return quality(levels, index)

    found = searched(config_of(candidates=24), measure)
    assert len(calls) == len(set(calls)) == sum(len(one.groups) for one in found)
    pruned = [one for one in found if one.state == "pruned"]
    assert pruned
    assert all(one.state == "finished" for one in found[:AT_ONCE]), "there is nothing yet to compare them with"
    for at, one in enumerate(found):
        assert all(group.keys() == {"query=asis", "query=shallow"} for group in one.groups)
        before = [other for other in found[: at - at % AT_ONCE] if other.state == "finished"]
        for taken in range(1, len(one.groups) + 1) if before else ():
            median = np.median([mean_of_worst(other.groups[:taken]) for other in before])
            behind = mean_of_worst(one.groups[:taken]) < median
            last = taken == len(one.groups)
            assert behind == (one.state == "pruned" and last) or (last and taken == 3)
        assert len(one.groups) < 3 if one.state == "pruned" else len(one.groups) == 3


def test_it_finds_what_is_planted() -> None:
    found = searched(config_of(candidates=40))
    late = [dict(one.levels)["scanvi.max_epochs"] for one in found[20:]]
    assert np.mean(late) > 24, "drawn at random it would be 17.5, and 30 is best"


def test_a_failed_trial_fails_its_candidate_and_the_search_goes_on() -> None:
    config = config_of()
    third = searched(config)[2].levels

    def measure(levels: Levels, index: int) -> Group:
        return {**quality(levels, index), **({"query=asis": float("nan")} if (levels, index) == (third, 1) else {})}

    found = searched(config, measure)
    assert [one.state for one in found].count("failed") == 1
    assert (found[2].state, len(found[2].groups), len(found)) == ("failed", 1, 12)


def test_a_space_that_is_used_up_ends_the_search() -> None:
    space = "{scvi.n_latent: {type: randint, low: 5, high: 8}, scvi.norm: {levels: [batch, layer]}}"
    found = searched(config_of(space, candidates=30), lambda levels, index: {"all": 0.5})
    assert len(found) == len({one.levels for one in found}) == 6


@cache
def _conditions() -> Conditions:
    config = config_of()
    return Conditions(config, pbmc(), trials_of(config, query_names(config.data)))


def followed(config: StudyConfig, value: Callable[[Any], float | None] = lambda key: None) -> tuple[Search, Plan]:
    return follow_search(config, query_names(config.data), _conditions(), value)


@cache
def trained(measure: Callable[[Levels, int], Group] = quality) -> tuple[Search, Plan]:
    """A whole search and its plan, whose trials give what some measure says."""
    config = config_of()
    known: dict[str, float] = {}
    while True:
        found, plan = followed(config, known.get)
        missing = [one for one in plan.trials if one.key not in known]
        if not missing:
            return found, plan
        for one in missing:
            levels = tuple((name, level) for name, level in one.point if name != "query")
            known[one.key] = measure(levels, one.replicate.index)[f"query={one.query}"]


def test_seed_and_fold_belong_to_the_replicate_and_fresh_ones_are_fresh() -> None:
    config = config_of()
    found, plan = trained()
    for one in plan.trials:
        replicate = one.replicate
        assert (replicate.seed, replicate.fold) == (replicate.index, replicate.index)
    assert {one.index for one in fresh_of(config.space)}.isdisjoint(one.index for one in replicates_of(config.space))
    by_point = {index: {one.point for one in plan.trials if one.replicate.index == index} for index in range(6)}
    assert found.winner is not None
    assert by_point[3] == by_point[4] == by_point[5]
    chosen = {tuple(level for level in levels if level[0] != "query") for levels in by_point[3]}
    assert chosen == {found.winner.levels, found.default}
    for name in ("seed", "data.seed", "replicate"):
        with pytest.raises(InputError, match="no setting that can vary"):
            trials_of(config_of(f"{{{name}: {{levels: [0, 1]}}, scvi.n_latent: {{levels: [5, 6]}}}}", candidates=2), ())


def test_every_group_is_in_all_conditions_and_pretrainings_are_shared() -> None:
    _, plan = trained()
    groups: dict[Any, set[str]] = {}
    for one in plan.trials:
        parameters = tuple(level for level in one.point if level[0] != "query")
        groups.setdefault((parameters, one.replicate.index), set()).add(one.query)
    assert set(map(frozenset, groups.values())) == {frozenset({"asis", "shallow"})}
    needed = {(dict(one.point)["scvi.n_latent"], one.query, one.replicate) for one in plan.trials}
    pretrainings = [stage for stage in plan.stages if stage.kind == "pretraining"]
    assert len(pretrainings) == len(needed) < len(groups)


def test_the_winner_is_compared_with_the_default_settings_and_exported() -> None:
    config = config_of()
    found, _ = trained()
    assert found.winner is not None
    assert found.winner.recall == max(one.recall for one in found.candidates if one.state == "finished")
    assert found.confirmation is not None
    assert found.confirmation.difference > 0
    choice = choose_found(config, found)
    assert choice.levels == found.winner.levels
    assert {levels for levels, _ in choice.others} == {one.levels for one in found.candidates} - {choice.levels}
    recalls = [recall for _, recall in choice.others if not math.isnan(recall)]
    assert recalls == sorted(recalls, reverse=True)
    best = best_config(config, choice)
    assert best["chosen"]["settings"] == dict(found.winner.levels)
    assert best["scanvi"]["max_epochs"] == dict(found.winner.levels)["scanvi.max_epochs"]
    assert choice.table["chosen"].sum() == 1
    assert found.confirmation.sentence in best["chosen"]["reason"] + "."
    with pytest.raises(InputError, match="not over"):
        choose_found(config, followed(config)[0])


def test_where_the_default_settings_win_nothing_is_compared() -> None:
    default = default_of(config_of())
    found, _ = trained(
        lambda levels, index: {f"query={name}": 0.4 + 0.1 * (levels == default) for name in ("asis", "shallow")}
    )
    assert found.winner is not None
    assert found.winner.levels == default
    assert found.confirmation is None
    assert "found none that are better" in found.sentence


def test_a_search_without_any_result_says_so_and_is_json() -> None:
    found, _ = trained(lambda levels, index: {f"query={name}": float("nan") for name in ("asis", "shallow")})
    assert {one.state for one in found.candidates} == {"failed"}
    assert "no winner" in found.sentence
    assert json.loads(json.dumps(found.facts(), allow_nan=False))["winner"] is None
    assert len(found.table()) == 12


def group(*values: float) -> Group:
    return {str(at): value for at, value in enumerate(values)}


def test_the_interval_is_of_differences_paired_by_replicate() -> None:
    winner = [group(0.80, 0.70), group(0.60, 0.90), group(0.75, 0.85), group(0.90, 0.99)]
    default = [group(0.66, 0.90), group(0.59, 0.58), group(0.90, 0.71), group(0.87, 0.87)]
    found = compare_settings(winner, default)
    expected = stats.ttest_rel([70, 60, 75, 90], [66, 58, 71, 87]).confidence_interval(0.95)
    assert np.isclose(found.difference, 3.25)
    assert np.allclose([found.lower, found.upper], expected)
    assert "The winner is better" in found.sentence
    frame = found.to_frame()
    assert list(frame["condition"]) == ["the worst", "0", "1"]
    assert frame["lower"].notna().tolist() == [True, False, False], "only what was asked has an interval"


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ((0.71, 0.60, 0.74), "The interval includes 0"),
        ((0.75, 0.65, 0.80), "The winner is worse"),
        ((0.70, 0.60, 0.75), "The interval includes 0"),
    ],
)
def test_what_is_not_shown_is_said_plainly(others: tuple[float, ...], said: str) -> None:
    found = compare_settings(
        [group(0.70, 1.0), group(0.60, 1.0), group(0.75, 1.0)], [group(value, 1.0) for value in others]
    )
    assert said in found.sentence


def test_the_page_shows_candidates_and_confirmation_and_no_shares() -> None:
    config, (found, plan) = config_of(), trained()
    study = Study(config, query_names(config.data), pbmc(), plan, found)
    page = render_report(study, analyse(study, Finished({}, {}, {})), "run 'name=<script>'")
    assert page.count("<circle") == len(found.candidates)
    assert escape(found.sentence) in page
    assert escape(NOT_EXPLAINED) in page
    assert "<script" not in page, "what others wrote stays text"


def test_attribution_refuses(tmp_path: Any) -> None:
    config = config_of(FACTORS, f"root={tmp_path}")
    found, plan = followed(config)
    study = Study(config, query_names(config.data), pbmc(), plan, found)
    with pytest.raises(InputError, match="not a designed experiment"):
        explain(study, read_finished(study), ["heldout/recall"])


@pytest.mark.parametrize(
    ("factors", "changes", "words"),
    [
        (FACTORS, {"candidates": None}, ["candidates", "confirm"]),
        (FACTORS, {"confirm": 2}, ["space.confirm", "greater than or equal to 3"]),
        ("{scvi.n_latent: {levels: [5, 6]}}", {"design": "factorial"}, ["candidates", "only there"]),
        (FACTORS, {"replicates": {"seeds": 2, "folds": 3}}, ["replicates: 2"]),
        (FACTORS, {"controls": ["none"]}, ["controls"]),
        ("{query: {levels: [asis, shallow]}}", {}, ["settings to choose"]),
        (
            "{query_cells: {type: randint, low: 30, high: 90}, scvi.n_latent: {levels: [5, 6]}}",
            {},
            ["query_cells", "levels"],
        ),
        ("{scvi.norm: {levels: [batch, layer]}}", {}, ["2 settings", "factorial"]),
        (
            "{scvi.extra.var_activation: {levels: [relu, softplus]}, scvi.n_latent: {type: randint, low: 4, high: 50}}",
            {},
            ["scvi.extra.var_activation", "no value"],
        ),
        ("{scvi.dropout_rate: {type: uniform, low: 0, high: 2}}", {}, ["less than 1"]),
        (FACTORS, {"candidates": 100_000}, ["at most 100,000"]),
    ],
)
def test_bad_searches_are_refused(factors: str, changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        config = config_of(factors, **changes)
        trials_of(config, query_names(config.data))
    for word in words:
        assert word in str(refused.value)
