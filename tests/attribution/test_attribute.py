"""A whole study: what is corrected together, and what must not matter."""

from __future__ import annotations

import pandas as pd
import pytest

from study.attribution.attribute import attribute_study
from study.plan.factors import strata
from tests.made import attribute
from tests.simulated_tables import (
    SMALL,
)


def test_the_correction_is_over_all_classes_of_an_outcome(table: pd.DataFrame) -> None:
    one = table.assign(outcome="heldout/recall", class_name="a")
    alone = attribute_study(one, SMALL, strata(SMALL)).attributions[0]
    other_outcome = pd.concat([one, one.assign(outcome="train/recall")])
    twelve = pd.concat([one.assign(class_name=str(k)) for k in range(12)])
    effect = min(alone.effects, key=lambda e: e.p)
    same = attribute_study(other_outcome, SMALL, strata(SMALL)).attributions[0]
    more = attribute_study(twelve, SMALL, strata(SMALL)).attributions[0]
    # The first outcome has four fifths of the error of the page, the other what is left.
    assert min(same.effects, key=lambda e: e.p).p_adjusted == pytest.approx(min(effect.p_adjusted / 0.8, 1.0))
    best = min(more.effects, key=lambda e: e.p)
    number = sum(e.kind == best.kind for e in more.effects)
    assert best.p_adjusted == pytest.approx(min(best.p * 12 * number * 2, 1.0))
    doubtful = [e for e in more.effects if e.p < 0.05 < e.p_adjusted]
    assert doubtful
    assert not any(e.real for e in doubtful)


def test_the_order_of_rows_and_factors_does_not_matter(table: pd.DataFrame) -> None:
    straight = attribute(table, SMALL, strata(SMALL))
    shuffled = attribute(table.sample(frac=1, random_state=1), SMALL[::-1], strata(SMALL[::-1]))
    for share in straight.shares:
        other = shuffled.share(share.group)
        assert (other.share, other.p) == pytest.approx((share.share, share.p))
        assert (other.lower, other.upper) == pytest.approx((share.lower, share.upper), abs=0.02)
    assert [e.points for e in shuffled.effects] == pytest.approx([e.points for e in straight.effects])
