"""Words: each thing is called by one name, as a label and inside a sentence."""

from dataclasses import replace

import pytest

from study.attribution.drawn import OTHER
from study.attribution.findings import Effect
from study.attribution.layout import CAUSES, CHANCE
from study.config.values import Level
from study.plan.condition import Condition
from study.trials.metrics import MACRO, OVERALL
from study.verdict.words import (
    GROUP_WORDS,
    class_label,
    class_words,
    condition_label,
    effect_words,
    group_words,
    outcome_label,
    outcome_words,
    phrase,
    point_label,
    point_words,
    points_words,
    share_words,
    word,
)

EFFECT = Effect(
    *("marginal", "query_cells", 30, "all", None, None, "data", "pretraining"),
    *(-6.04, -8.2, -3.96, 1.0, 4.0, 0.01, 0.02),
)


@pytest.mark.parametrize(
    ("level", "said"),
    [(True, "true"), (None, "null"), ("all", "all"), (30, "30"), (0.00123456, "0.001235"), (0.2, "0.2")],
)
def test_a_level_is_written_as_in_a_search_space(level: Level | None, said: str) -> None:
    assert word(level) == said


def test_points_are_told_with_whole_names_in_sentences_and_short_ones_on_labels() -> None:
    point = (("scanvi.linear_classifier", False), ("scanvi.lr", 0.00123456))
    assert point_words(point) == "scanvi.linear_classifier=false, scanvi.lr=0.001235"
    assert point_label(point) == "linear_classifier=false, lr=0.001235"
    assert (point_words(()), point_label(())) == ("all", "")


def test_every_group_and_summary_has_both_forms() -> None:
    assert set(GROUP_WORDS) == {*CAUSES, OTHER, CHANCE}
    assert group_words("parameter") == "the settings"
    assert (class_label(MACRO), class_words(MACRO)) == ("Mean of all classes (macro)", "the mean of all classes")
    assert (class_label(OVERALL), class_words(OVERALL)) == ("All cells together (overall)", "all cells together")
    assert (class_label("B cell"), class_words("B cell")) == ("B cell", "B cell")


def test_conditions_say_size_and_draw_where_there_are_some() -> None:
    assert condition_label(Condition("asis", 1431)) == "asis, 1,431 cells"
    assert condition_label(Condition("asis", 30, draw=2)) == "asis, 30 cells, draw 2"
    assert condition_label(Condition("none", 0)) == "none"


def test_outcomes_say_where_they_are_measured() -> None:
    assert outcome_words("train/precision") == "precision on training cells"
    assert outcome_words("heldout/macro_recall") == "macro recall on held-out cells"
    assert outcome_label("train/precision")[0] == "Training precision"
    assert outcome_label("query/recall") == ("Recall on query cells", "on query cells")


def test_numbers_are_told_with_the_digits_that_are_known() -> None:
    assert share_words(0.4349, 0.296, 0.555) == "43% [30, 56]"
    assert [points_words(value) for value in (22.4, 9.96, 9.94, 6.04, 0.31)] == ["22", "10", "9.9", "6", "0.3"]


def test_effects_are_told_by_their_size_and_place() -> None:
    assert phrase("query_cells", 30, "all") == "30 query cells instead of all"
    assert phrase("scanvi.max_epochs", 30, 15) == "30 scANVI epochs instead of 15"
    assert phrase("scvi.n_latent", 20, 10) == "scvi.n_latent = 20 instead of 10"
    assert effect_words(EFFECT, "recall") == "with 30 query cells instead of all, recall is 6 points lower [4, 8.2]"
    local = replace(EFFECT, at_factor="scanvi.max_epochs", at_level=15, points=6.04, lower=-0.5, upper=12.4)
    assert effect_words(local, "recall") == (
        "with 30 query cells instead of all, at scanvi.max_epochs = 15, recall is 6 points higher [-0.5, 12]"
    )
