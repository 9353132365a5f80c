"""What a study can expect: half-widths as simulated tables have them, and what sharpens a statement."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from study.attribution.attribute import attribute_tables
from study.attribution.effects import compare, contrasts_of, weights_of
from study.attribution.findings import Attribution
from study.attribution.intervals import share_bounds
from study.attribution.layout import Layout
from study.attribution.tables import ClassTable
from study.plan.factors import strata
from study.verdict.assurance import replicates_needed
from study.verdict.precision import ASSUMED, Assumptions, assumptions_from, expected_precision
from tests.simulated_tables import Planted, draw, family_of, forum_design, layout_for, plant_effects, small_design

CHANCE = {"pretraining": 0.10, "fine-tuning": 0.08, "fine-tuning snapshots": 0.04}
CLASSES = 5
CAUSES = {"data": 0.12, "parameter": 0.10, "data x parameter": 0.05}


def found_in(planted: Planted, layout: Layout, replicates: int, seed: int = 0) -> Attribution:
    """Return the attribution of one simulated class."""
    rng = np.random.default_rng(seed)
    drawn = draw(planted, plant_effects(planted, layout, rng), layout, replicates, 1, rng)
    index = np.arange(replicates)
    return attribute_tables({("r", "a"): ClassTable(drawn.correct[0], drawn.total[0], index, index)}, layout)[0]


@pytest.mark.parametrize("replicates", [3, 10])
def test_half_widths_are_those_of_simulated_studies(replicates: int) -> None:
    factors = forum_design()
    layout = layout_for(factors)
    known = Assumptions(CHANCE, CAUSES, 85, "")
    expected = expected_precision(factors, strata(factors), known, (replicates,), CLASSES)
    planted = Planted(tuple(CHANCE.values()), CAUSES, recall=0.85, block=0.0)
    rng = np.random.default_rng(0)
    # The planted effects lie where the assumptions put them: on the lowest terms of each group.
    columns = np.zeros(layout.cells)
    for group, variance in CAUSES.items():
        order = min(term.order for term in layout.terms if term.group == group)
        lowest = [t for t, term in enumerate(layout.terms) if (term.group, term.order) == (group, order)]
        for t in lowest:
            mine = np.flatnonzero(layout.column_term == t)
            columns[mine] = np.sqrt(layout.cells * variance / len(lowest) / len(mine))
    effects = layout.rotation @ columns
    drawn = draw(planted, effects, layout, replicates, 60, rng)
    bounds = share_bounds(family_of(drawn.correct, drawn.total, layout).squares, layout, draws=256)
    simulated = (bounds.upper - bounds.lower).mean(axis=0) / 2
    assert [share.half_width for share in expected.shares] == pytest.approx(simulated, rel=0.35)
    contrasts = contrasts_of(layout)
    flat = draw(planted, np.zeros(layout.cells), layout, replicates, 200, rng)
    weights = weights_of(contrasts, layout)
    studies = [slice(start, start + CLASSES) for start in range(0, 200, CLASSES)]
    compared = [compare(weights, family_of(flat.correct[mine], flat.total[mine], layout), layout) for mine in studies]
    half = np.concatenate([one.upper - one.lower for one in compared]).mean(axis=0) / 2
    for effect in expected.effects:
        mine = [c for c, one in enumerate(contrasts) if (one.kind, one.factor) == ("marginal", effect.factor)]
        assert effect.half_width == pytest.approx(half[mine].mean(), rel=0.2)


def test_effects_that_are_to_be_found_in_four_of_five_studies_are() -> None:
    factors = forum_design()
    layout = layout_for(factors)
    expected = expected_precision(factors, strata(factors), Assumptions(CHANCE, {}, 85, ""), (5,), CLASSES)
    planted = Planted(tuple(CHANCE.values()), {}, recall=0.85, block=0.0)
    rng = np.random.default_rng(0)
    contrasts = contrasts_of(layout)
    flat = draw(planted, np.zeros(layout.cells), layout, 5, 60 * CLASSES, rng)
    for factor in layout.factors:
        (least,) = (one.detectable for one in expected.effects if one.factor == factor.name)
        at = contrasts.index(next(c for c in contrasts if (c.kind, c.factor) == ("marginal", factor.name)))
        found = []
        for start in range(0, len(flat.correct), CLASSES):
            mine = slice(start, start + CLASSES)
            compared = compare(
                weights_of(contrasts, layout), family_of(flat.correct[mine], flat.total[mine], layout), layout
            )
            error = compared.se[:, at]
            p = 2 * stats.t.sf(np.abs(compared.estimate[:, at] + least) / error, compared.df[:, at])
            tests = sum(len(one.levels) - 1 for one in layout.factors) * (CLASSES + 2)
            found += list(p * 2 * tests / 0.8 <= 0.05)
        assert np.mean(found) == pytest.approx(0.8, abs=0.1)


def test_more_replicates_sharpen_and_more_epoch_levels_do_not() -> None:
    factors = small_design()
    found = expected_precision(factors, strata(factors))
    for name in ("query", "scanvi.max_epochs"):
        widths = [one.half_width for one in found.effects if one.factor == name]
        assert widths == sorted(widths, reverse=True)
    assert [one.df for one in found.effects if one.factor == "query"] == [4, 8, 18]
    chance = [one.half_width for one in found.shares if one.group == "chance"]
    assert chance == sorted(chance, reverse=True)
    assert "more replicates do" in found.statement
    assert "levels of scanvi.max_epochs" in found.statement
    assert found.source == ASSUMED.source


def test_a_design_needs_the_chance_of_its_strata() -> None:
    factors = small_design()
    known = Assumptions({"fine-tuning": 0.1, "fine-tuning snapshots": 0.1}, {}, 85, "a pilot of settings alone")
    with pytest.raises(ValueError, match="No chance is given for pretraining"):
        expected_precision(factors, strata(factors), known)


def test_an_earlier_study_plans_the_next() -> None:
    layout = layout_for(small_design())
    found = found_in(Planted((0.1, 0.08, 0.04), CAUSES), layout, 10)
    known = assumptions_from(found)
    assert known.chance == {part.stratum: part.variance for part in found.chance}
    shares = {share.group: share.share for share in found.shares}
    total = sum(known.causes.values()) + sum(known.chance.values())
    assert {group: variance / total for group, variance in known.causes.items()} == pytest.approx(
        {group: share for group, share in shares.items() if group != "chance"}
    )
    assert expected_precision(small_design(), strata(small_design()), known).source.endswith("10 replicates")


def test_further_replicates_are_more_where_the_answer_is_close() -> None:
    layout = layout_for(small_design())
    clear = found_in(Planted((0.02, 0.02, 0.02), {"data": 0.2}), layout, 3, seed=1)
    close = found_in(Planted((0.05, 0.05, 0.05), {"data": 0.16}), layout, 3, seed=1)
    few, many = replicates_needed(clear, layout), replicates_needed(close, layout)
    assert few is not None
    assert 3 < few <= 30
    assert many is None or many > few
