"""The page of a study: self-contained, every number from the tables, and other people's words inert."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from study.attribution.attribute import attribute_study
from study.plan.factors import strata
from study.report.charts import MOST_EFFECTS, number
from study.trials.tables import count_frame
from study.verdict.controls import ControlResult
from study.verdict.sentences import Verdict, judge
from tests.scenes import HOSTILE, Page, Scene, described, large, scene


@pytest.fixture(scope="module")
def small() -> Scene:
    return scene(replicates=3)


@pytest.fixture(scope="module")
def page(small: Scene) -> Page:
    return small.page()


def test_the_page_needs_no_network_and_is_the_same_again(small: Scene, page: Page) -> None:
    links = [value for name, value in page.attributes if name in ("href", "src", "action", "data")]
    assert links and all(str(link).startswith("#") for link in links)
    assert "link" not in page.tags and "@import" not in page.text
    assert any(str(value).startswith("default-src 'none'") for name, value in page.attributes if name == "content")
    assert small.page().text == small.page().text


def test_every_link_leads_to_a_section(page: Page) -> None:
    places = {value for name, value in page.attributes if name == "id"}
    assert {str(value)[1:] for name, value in page.attributes if name == "href"} <= places


def test_both_answers_stand_apart_on_top(small: Scene, page: Page) -> None:
    card = judge(small.attribution, "heldout/recall")
    assert page.says("Why do single runs differ?") and page.says("Which effects are real?")
    assert page.says(card.why) and page.says(card.which)
    for one in card.classes:
        assert page.says(one.why) and page.says(one.which)


def test_charts_show_the_numbers_of_the_tables(small: Scene, page: Page) -> None:
    data, attribution = page.data, small.attribution
    frames = attribution.to_frames()
    done = [trial for trial in small.plan.trials if trial.key in small.results]
    assert data["classes"] == ["Mean of all classes (macro)", "All cells together (overall)", "B", "NK", "T"]
    for outcome in small.config.outcomes:
        shown = data["trials"]["values"][outcome]
        expected = [100 * small.results[trial.key].metrics[f"{outcome}/NK"] for trial in done]
        assert shown[3] == pytest.approx(expected, abs=0.005)
        table = count_frame(small.plan, small.results, [outcome]).query("class_name == '(macro)'")
        assert shown[0] == pytest.approx(100 * table["correct"] / table["total"], abs=0.006)
        shares = frames["shares"].query("outcome == @outcome and class_name == 'NK'")
        assert [one[1] for one in data["attributions"][outcome][3]["shares"]] == pytest.approx(
            shares["share"], abs=1e-4
        )
    effects = data["attributions"]["heldout/recall"][3]["effects"]
    largest = attribution.of("heldout/recall", "NK").effects[0]
    assert effects[0]["points"] == [number(v, 2) for v in (largest.points, largest.lower, largest.upper)]
    assert effects[0]["real"] is largest.real


def test_trials_point_at_their_levels_conditions_and_settings(small: Scene, page: Page) -> None:
    data = page.data
    trials = data["trials"]
    for at, planned in enumerate(small.plan.trials):
        levels = [factor["levels"][trials["levels"][f][at]] for f, factor in enumerate(data["factors"])]
        assert levels == [
            str(level).lower() if isinstance(level, bool) else str(level) for level in planned.levels.values()
        ]
        assert data["conditions"][trials["condition"][at]]["query"] == planned.condition.query
        assert [level for _, level in trials["settings"][trials["setting"][at]]] == levels[1:]
        assert trials["replicate"][at] == planned.replicate.index


def test_confusion_matrices_add_up_the_trials_of_a_condition(small: Scene, page: Page) -> None:
    matrix = page.data["confusion"]["heldout"][1]
    where = page.data["conditions"][matrix["condition"]]["query"]
    keys = [trial.key for trial in small.plan.trials if trial.condition.query == where]
    assert matrix["trials"] == len(keys) == 12
    assert matrix["counts"] == np.sum([small.results[key].confusion["heldout"] for key in keys], axis=0).tolist()


def test_the_page_says_what_was_done(page: Page) -> None:
    for words in ("24 of 24 trials finished", "8 design points × 3 replicates", "All 24 trials are finished"):
        assert page.says(words)
    for words in (
        "scanvi.linear_classifier",
        "Depth",
        "1,234",
        "scvi-tools 1.4.2",
        "d1ge57",
        "max_epochs: 40",
        "0.010",
    ):
        assert page.says(words)
    assert not page.says("not run yet")


@pytest.mark.parametrize("place", ["classes", "queries"])
def test_hostile_names_are_inert_and_kept(place: str) -> None:
    names: dict[str, Any] = {place: HOSTILE}
    study = scene(**names, per_class=20, replicates=2)
    failed = next(iter(study.results))
    kept = {key: one for key, one in study.results.items() if key != failed}
    shown = study.page(results=kept, failures={failed: HOSTILE[0]}, checks=described(HOSTILE, HOSTILE))
    assert len(shown.scripts) == 3 and not {"b", "img", "iframe", "object"} & shown.tags
    assert "<script>alert" not in shown.text and "49<b>" not in shown.text and "</title>" not in shown.scripts[0]
    assert not any(
        name.startswith("on") or (name == "style" and "url" in str(value)) for name, value in shown.attributes
    )
    data = shown.data
    if place == "classes":
        assert data["classes"][2:] == sorted(HOSTILE)
    else:
        assert data["factors"][0]["levels"] == list(HOSTILE)
    for name in HOSTILE:
        assert shown.says(name)


def test_nothing_finished_yet_leaves_design_and_data(small: Scene) -> None:
    shown = small.page(results={})
    assert shown.says("No trial is finished yet") and shown.says("24 not run yet") and shown.says("Depth")
    places = {value for name, value in shown.attributes if name == "id"}
    assert "map" in places and "shares" not in places
    assert shown.data["map"]["status"] == [[0] * 8] * 3


def test_one_replicate_is_shown_and_says_why_nothing_is_decomposed(small: Scene) -> None:
    first = {t.key: small.results[t.key] for t in small.plan.trials if t.replicate.index == 0}
    counts = count_frame(small.plan, first, small.config.outcomes)
    shown = small.page(
        results=first, attribution=attribute_study(counts, small.plan.factors, strata(small.plan.factors))
    )
    assert shown.says("Nothing could be decomposed yet: one replicate only")
    assert shown.says("1 of 3 replicates are complete")
    assert len(shown.data["trials"]["replicate"]) == 8


def test_a_random_design_without_a_whole_replicate_says_what_is_missing() -> None:
    factors = {
        "query": {"levels": ["first", "second"]},
        "scanvi.classification_ratio": {"type": "uniform", "low": 1, "high": 90},
    }
    study = scene(factors=factors, design="random", points=6, replicates=2)
    shown = study.page(attribution=None)
    assert shown.says("Too few replicates are complete yet") and shown.says("uniform from 1 to 90")
    data = shown.data
    assert data["factors"][1]["levels"] == [] and all(1 <= value <= 90 for value in data["trials"]["levels"][1])
    assert data["attributions"]["heldout/recall"] == [None] * 5


def test_failed_and_missing_trials_are_told_apart(small: Scene) -> None:
    keys = [trial.key for trial in small.plan.trials]
    kept = {key: small.results[key] for key in keys[:-2]}
    shown = small.page(results=kept, attribution=None, failures={keys[-1]: "out of memory"})
    assert shown.data["map"]["status"][-1] == [2] * 6 + [0, 1]
    assert shown.says("1 failed: out of memory") and shown.says("replicate 2") and shown.says("1 not run yet")


def test_depth_and_make_up_are_those_of_the_check(page: Page) -> None:
    data = page.data["data"]
    assert data["parts"] == data["labelled"] == ["reference", "first", "second"] and data["classes"] == ["B", "NK", "T"]
    assert data["depth"]["genes"] == [[1002, 2002, 3002]] * 3
    assert data["shares"][2] == [50, 50, 50] and page.says("class 'B' is small")


def test_what_is_undefined_is_null_not_nan(small: Scene) -> None:
    broken = next(iter(small.results))
    metrics = {k: v for k, v in small.results[broken].metrics.items() if k != "train/precision/NK"}
    changed = small.results | {broken: replace(small.results[broken], metrics=metrics, made_with={"git": "other"})}
    shown = small.page(results=changed, attribution=small.attribution)
    assert shown.data["trials"]["values"]["train/precision"][3][0] is None
    assert "NaN" not in shown.scripts[0]
    assert shown.says("The trials were made with different versions")


def test_sixty_classes_and_five_thousand_trials_stay_under_20_mb() -> None:
    assert len(large().page(attribution=None).text.encode()) < 20e6


def test_many_effects_are_cut_and_the_rest_is_named(small: Scene) -> None:
    found = small.attribution
    first = found.attributions[2]
    simple = next(effect for effect in first.effects if effect.kind == "simple")
    many = replace(first, effects=first.effects + (simple,) * 500)
    changed = replace(found, attributions=(*found.attributions[:2], many, *found.attributions[3:]))
    at = [found.class_name for found in found.attributions[:5]].index(first.class_name)
    shown = small.page(attribution=changed).data["attributions"]["heldout/recall"][(at + 2) % 5]
    assert len(shown["effects"]) == MOST_EFFECTS
    assert shown["moreEffects"] == len(many.effects) - MOST_EFFECTS
    assert {effect["factor"] for effect in shown["effects"] if not effect["at"]} == {
        "query",
        "linear_classifier",
        "max_epochs",
    }


def test_cards_without_an_outcome_are_left_out(small: Scene) -> None:
    cards: list[Verdict] = [judge(small.attribution, "train/recall")]
    shown = small.page(verdicts=cards, command="scanvi-study run data=mine")
    assert next(value for name, value in shown.attributes if name == "data-outcome") == "train/recall"
    assert shown.says("scanvi-study run data=mine") and not shown.says("with whatever else")


def test_the_report_shows_controls_and_warns_of_those_that_failed() -> None:
    study = scene(per_class=20, replicates=2)
    broken = ControlResult("repeat", "the same <b>", "fail", "differ by 1e-07 at most")
    page = study.page(controls=(broken, replace(broken, control="none", outcome="finished")))
    assert page.says("Control repeat failed.") and page.says("the same <b>") and not page.says("Control none failed")
    assert study.page().says("None was asked for")
