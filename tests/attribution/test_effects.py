"""Effects in points: what they are, how often their intervals hold the truth, and their correction."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from study.attribution.correction import adjust_effects, holm
from study.attribution.effects import compare, contrasts_of, weights_of
from study.plan.factors import strata
from tests.made import attribute
from tests.simulated_tables import (
    SMALL,
    Planted,
    chance_for,
    draw,
    family_of,
    forum_design,
    layout_for,
    simulated,
    true_points,
)


def test_effects_in_points_hold_the_truth_where_levels_differ_in_noise() -> None:
    """Near 100% nothing moves; an error pooled in points would be too small for the level that does move."""
    layout = layout_for(forum_design())
    planted = Planted(chance_for(4, layout), {}, recall=0.98, cells=500)
    effects = np.where(np.arange(layout.cells) < layout.cells // 3, -1.7, 0.0)
    drawn = draw(planted, effects, layout, 3, 300, np.random.default_rng(2))
    contrasts = contrasts_of(layout)
    weights = weights_of(contrasts, layout)
    compared = compare(weights, family_of(drawn.correct, drawn.total, layout), layout)
    truth = true_points(planted, effects, drawn.block) @ weights.T
    inside = ((compared.lower <= truth) & (truth <= compared.upper)).mean(axis=0)
    differences = np.array([contrast.kind != "mean" for contrast in contrasts])
    assert inside[differences].min() > 0.89
    assert inside[differences].mean() > 0.93


def test_effects_are_differences_of_means(table: pd.DataFrame) -> None:
    found = attribute(table, SMALL, strata(SMALL), baselines={"query": "B"})
    points = 100 * table.correct / table.total
    means = points.groupby(table["query"]).mean()
    local = points.groupby([table["query"], table["scanvi.max_epochs"]]).mean()
    for effect in found.effects:
        if effect.factor == "query":
            assert effect.baseline == "B"
            if effect.kind == "marginal":
                assert effect.points == pytest.approx(means[effect.level] - means["B"])
                assert (effect.strata, effect.df) == ("pretraining", pytest.approx(1 / (1 / 4 + 1 / 2), abs=0.1))
            if effect.at_factor == "scanvi.max_epochs":
                at = effect.at_level
                assert effect.points == pytest.approx(local[effect.level, at] - local["B", at])
                assert effect.strata == "pretraining + fine-tuning snapshots"
    sizes = [abs(effect.points) for effect in found.effects]
    assert sizes == sorted(sizes, reverse=True)
    with pytest.raises(ValueError, match="no level of 'query'"):
        attribute(table, SMALL, strata(SMALL), baselines={"query": "Z"})


def test_degrees_of_freedom_across_strata_are_capped() -> None:
    """With little chance at the root, Satterthwaite's would be those of the leaves, on the word of 4."""
    table, _ = simulated(Planted((0.0, 0.0, 0.2), {}), layout_for(SMALL))
    found = attribute(table, SMALL, strata(SMALL))
    across = [e.df for e in found.effects if e.strata == "pretraining + fine-tuning snapshots"]
    # A lone class has two more of its own, of how much the effect varies between three replicates.
    assert max(across) == pytest.approx(1 / (1 / 12 + 1 / 2))
    assert min(e.df for e in found.effects if e.strata == "fine-tuning snapshots") > 1 / (1 / 20 + 1 / 2)


def test_holm_is_that_of_statsmodels_and_weights_shift_it() -> None:
    p = np.random.default_rng(0).uniform(size=30) ** 3
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm(p, np.full(30, 7.0)) == pytest.approx(holm(p))
    weights = np.ones(30)
    weights[p.argmin()] = 29.0
    assert holm(p, weights).min() == pytest.approx(p.min() * 58 / 29)


def test_marginal_and_simple_effects_share_the_error() -> None:
    contrasts = contrasts_of(layout_for(SMALL))
    kinds = np.array([contrast.kind for contrast in contrasts])
    for kind in ("marginal", "simple"):
        p = np.ones((2, len(kinds)))
        first = int(np.flatnonzero(kinds == kind)[0])
        p[1, first] = 1e-4
        adjusted = adjust_effects(p, contrasts)
        # Two kinds, two tables: the smallest p is multiplied by the number of its kind, twice two times.
        assert adjusted[1, first] == pytest.approx(1e-4 * 2 * 2 * (kinds == kind).sum())
        assert np.isnan(adjusted[:, kinds == "mean"]).all()
