"""Shares: their intervals hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from study.attribution.intervals import share_bounds
from study.attribution.layout import (
    CAUSES,
    squares,
)
from study.attribution.tables import logit
from study.plan.factors import strata
from tests.made import attribute
from tests.simulated_tables import (
    SMALL,
    Planted,
    chance_for,
    draw,
    frame_of,
    layout_for,
    plant_effects,
)


@pytest.mark.parametrize("causes", [{}, {"data": 0.3}, {"data": 0.1, "parameter": 0.1, "data x parameter": 0.05}])
def test_intervals_hold_the_truth_as_often_as_they_say(causes: dict[str, float]) -> None:
    layout = layout_for(SMALL)
    planted = Planted(chance_for(4, layout), causes)
    rng = np.random.default_rng(1)
    effects = plant_effects(planted, layout, rng)
    drawn = draw(planted, effects, layout, 3, 250, rng)
    bounds = share_bounds(squares(logit(drawn.correct, drawn.total), layout), layout, draws=256)
    truth = np.array([*(causes.get(group, 0.0) for group in CAUSES), sum(planted.chance)])
    truth /= truth.sum()
    inside = ((bounds.lower <= truth + 1e-9) & (truth <= bounds.upper + 1e-9)).mean(axis=0)
    assert (inside > 0.95 - 3.5 * np.sqrt(0.05 * 0.95 / 250)).all()
    assert (bounds.upper - bounds.lower).mean() < 0.5


def test_shares_add_up_and_lie_in_their_intervals(table: pd.DataFrame) -> None:
    found = attribute(table, SMALL, strata(SMALL))
    assert sum(share.share for share in found.shares) == pytest.approx(1)
    assert all(share.lower <= share.share <= share.upper for share in found.shares)
    assert sum(part.share for part in found.chance) == pytest.approx(found.share("chance").share)
    causes = 1 - found.share("chance").share
    assert sum(one.shapley for one in found.sensitivity) == pytest.approx(causes, abs=0.02)
    assert all(one.total >= one.shapley - 1e-9 for one in found.sensitivity)


def test_nothing_but_a_cause_gives_it_everything() -> None:
    eta = np.tile(np.repeat([2.0, 0.0, -1.0], 8), (3, 1)) + np.array([[0.5], [0.0], [-0.5]])
    found = attribute(frame_of(1e6 * expit(eta) - 0.5, np.full(eta.shape, 1e6 - 1), SMALL), SMALL, strata(SMALL))
    assert found.share("data").lower == pytest.approx(1, abs=1e-3)
    assert found.share("data").p == 0
    assert found.share("chance").upper == pytest.approx(0, abs=1e-3)
