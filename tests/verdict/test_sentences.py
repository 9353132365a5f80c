"""The card: it keeps its two answers apart, names trade-offs, and says when it cannot tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from study.attribution.attribute import attribute_tables
from study.attribution.findings import StudyAttribution
from study.attribution.intervals import clear_winners
from study.attribution.layout import Floats
from study.attribution.tables import ClassTable
from study.errors import InputError
from study.verdict.sentences import ReplicateCost, dominant_group, judge
from tests.simulated_tables import Planted, draw, layout_for, small_design

LAYOUT = layout_for(small_design())
QUIET, LOUD = (0.01, 0.01, 0.01), (0.3, 0.2, 0.1)


def level(factor: str, index: int, size: float) -> Floats:
    """Return effects on the cells: `size` where a factor is at a level."""
    at = np.indices(LAYOUT.levels)[[one.name for one in LAYOUT.factors].index(factor)].ravel()
    return np.where(at == index, size, 0.0)


def study_of(
    classes: dict[str, tuple[Floats, tuple[float, ...]]],
    replicates: int = 5,
    outcome: str = "heldout/recall",
    error: float = 0.05,
) -> StudyAttribution:
    """Return a study of classes with given effects and chance."""
    rng = np.random.default_rng(0)
    index = np.arange(replicates)
    tables = {}
    for name, (effects, chance) in classes.items():
        drawn = draw(Planted(chance, {}), effects, LAYOUT, replicates, 1, rng)
        tables[outcome, name] = ClassTable(drawn.correct[0], drawn.total[0], index, index)
    return StudyAttribution(LAYOUT.factors, LAYOUT.strata, attribute_tables(tables, LAYOUT, level=error))


def test_a_planted_cause_and_planted_chance_are_named() -> None:
    nothing = np.zeros(LAYOUT.cells)
    card = judge(study_of({"B": (level("query", 2, -1.5), QUIET), "T": (nothing, LOUD)}), "heldout/recall")
    b_cell, t_cell = card.classes
    assert (b_cell.dominant, t_cell.dominant) == ("data", "chance")
    assert "Single runs differ mostly by the data: " in b_cell.why
    assert "With query C instead of A, recall on held-out cells is " in b_cell.which
    assert "points lower [" in b_cell.which
    assert t_cell.real == ()
    assert "mostly by chance in T; mostly by the data in B" in card.why
    assert "recall on held-out cells of B is" in card.which
    assert card.names_a_cause
    assert card.to_frame().dominant.tolist() == ["data", "chance"]


def test_a_group_dominates_where_its_interval_clears_all_others() -> None:
    small = (0.0, 0.1)
    clear = [(0.5, 0.8), small, small, (0.2, 0.4)]
    close = [(0.5, 0.8), small, small, (0.2, 0.6)]
    chance = [(0.2, 0.4), small, small, (0.5, 0.8)]
    lower, upper = np.moveaxis(np.array([clear, close, chance]), -1, 0)
    assert clear_winners(lower, upper).tolist() == [0, -1, 3]


def test_a_look_that_may_use_less_of_the_error_names_less() -> None:
    table = {"B": (level("query", 2, -0.9), QUIET)}
    at_once, later = (study_of(table, error=error).attributions[0] for error in (0.05, 0.002))
    assert dominant_group(at_once) == "data"
    assert dominant_group(later) is None
    assert later.shares[0].lower == at_once.shares[0].lower, "the interval that is shown is the same"
    assert at_once.shares[0].p_adjusted and later.shares[0].p_adjusted
    assert later.shares[0].p_adjusted == pytest.approx(min(1, 25 * at_once.shares[0].p_adjusted))
    assert {e.points for e in later.effects if e.real} < {e.points for e in at_once.effects if e.real}


def test_a_cause_needs_support_after_correction() -> None:
    found = study_of({"B": (level("query", 2, -1.5), QUIET)}).attributions[0]
    assert dominant_group(found) == "data"
    doubtful = replace(found, shares=tuple(replace(s, p_adjusted=None if s.p is None else 0.06) for s in found.shares))
    assert dominant_group(doubtful) is None


def test_an_effect_can_be_real_and_small_beside_chance() -> None:
    small = (level("scanvi.max_epochs", 1, 0.5), (0.5, 0.3, 0.005))
    card = judge(study_of({"B": small, "T": small, "NK": small}), "heldout/recall")
    assert card.classes[0].dominant == "chance"
    assert {(effect.factor, effect.level) for effect in card.classes[0].real} == {("scanvi.max_epochs", 30)}


def test_it_says_when_it_cannot_tell_and_what_would_settle_it() -> None:
    card = judge(study_of({"B": (level("query", 2, -1.2), LOUD)}, replicates=3), "heldout/recall")
    assert card.classes[0].dominant is None
    assert "Cannot tell yet" in card.classes[0].why
    assert "further replicate" in card.classes[0].why
    assert "cannot be told yet in B" in card.why


def test_further_replicates_come_with_their_cost_and_the_override_that_runs_them() -> None:
    study = study_of({"B": (level("query", 2, -1.2), LOUD)}, replicates=3)
    card = judge(study, "heldout/recall", ReplicateCost(trainings=9, steps=1500))
    further = card.classes[0].further_replicates
    assert further is not None
    for sentence in (card.classes[0].why, card.why):
        words = f"about {further} further replicate{'s' * (further != 1)}"
        assert f"{words} ({9 * further:,} trainings, {1500 * further:,} opt" in sentence
        assert f"space.replicates={3 + further})" in sentence


def test_a_setting_that_helps_one_class_and_hurts_another_is_a_trade_off() -> None:
    helps, hurts = (level("scanvi.linear_classifier", 1, size) for size in (0.8, -0.8))
    study = study_of({"B": (helps, QUIET), "T": (hurts, QUIET), "(macro)": (helps, QUIET)})
    (trade,) = judge(study, "heldout/recall").trade_offs
    assert (trade.factor, trade.level) == ("scanvi.linear_classifier", False)
    assert [name for name, _ in trade.helps] == ["B"]
    assert [name for name, _ in trade.hurts] == ["T"]
    assert trade.sentence.startswith("Trade-off: linear classifier false instead of true helps B ")
    one_way = study_of({"B": (helps, QUIET), "T": (helps, QUIET)})
    assert judge(one_way, "heldout/recall").trade_offs == ()


def test_a_local_effect_is_told_with_its_place() -> None:
    local = level("query", 2, 1.0) * level("scanvi.max_epochs", 0, -2.0)
    card = judge(study_of({"B": (local, QUIET)}, replicates=6), "heldout/recall")
    assert "at scanvi.max_epochs = 15" in card.classes[0].which


def test_a_class_that_is_not_decomposed_says_why() -> None:
    study = study_of({"B": (np.zeros(LAYOUT.cells), LOUD)})
    few = ClassTable(np.full((3, LAYOUT.cells), 9.0), np.full((3, LAYOUT.cells), 10.0), np.arange(3), np.arange(3))
    rare = attribute_tables({("heldout/recall", "rare"): few}, LAYOUT)
    both = StudyAttribution(study.factors, study.strata, (*study.attributions, *rare))
    card = judge(both, "heldout/recall")
    assert card.classes[1].sentence.startswith("rare: Not decomposed: too few cells")
    assert "rare" not in card.why
    only = judge(StudyAttribution(study.factors, study.strata, rare), "heldout/recall")
    assert only.why == "No class could be decomposed."
    with pytest.raises(InputError, match=r"'train/recall' was measured in no trial.*'heldout/recall'"):
        judge(study, "train/recall")


def test_causes_are_named_in_one_order_chance_first() -> None:
    """Three of them dominate, each in classes of its own; a set of names would come in another order each day."""
    nothing = np.zeros(LAYOUT.cells)
    setting, query = LAYOUT.factors[-1], level("query", 2, -1.5)
    both = query * np.where(level(setting.name, 1, 1.0) > 0, 1, -1)
    classes = {
        "D": (query, QUIET),
        "P": (level(setting.name, 1, -1.5), QUIET),
        "M": (both, QUIET),
        "C": (nothing, LOUD),
    }
    card = judge(study_of(classes), "heldout/recall")
    assert [one.dominant for one in card.classes] == ["data", "parameter", "data x parameter", "chance"]
    assert card.why == (
        "Single runs differ mostly by chance in C; mostly by the data in D; mostly by the settings in P; mostly by "
        "settings that act by data in M."
    )


def test_a_class_that_is_not_decomposed_says_so_beside_others() -> None:
    tables = study_of({"B": (level("query", 2, -1.5), QUIET)})
    rare = replace(
        tables.attributions[0], class_name="rare", method="none", reason="too few cells", shares=(), effects=()
    )
    card = judge(StudyAttribution(tables.factors, tables.strata, (*tables.attributions, rare)), "heldout/recall")
    assert [one.decomposed for one in card.classes] == [True, False]
    assert "rare" not in card.why
