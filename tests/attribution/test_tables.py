"""One class as a table: levels, logits, and what must not be decomposed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from study.attribution.tables import MIN_SUPPORT, logit, missing_not_at_random, percent, slope
from study.plan.factors import strata
from tests.made import attribute
from tests.simulated_tables import (
    SMALL,
    layout_for,
)


def test_levels_that_a_file_turned_into_text_are_found(table: pd.DataFrame) -> None:
    text = table.astype({"scanvi.linear_classifier": str, "scanvi.max_epochs": str})
    assert attribute(text, SMALL, strata(SMALL)).shares == attribute(table, SMALL, strata(SMALL)).shares
    with pytest.raises(ValueError, match="'Z' is none of its levels"):
        attribute(table.replace({"query": {"A": "Z"}}), SMALL, strata(SMALL))
    with pytest.raises(ValueError, match="twice"):
        attribute(pd.concat([table, table.iloc[:1]]), SMALL, strata(SMALL))
    with pytest.raises(ValueError, match="more cells right than counted"):
        attribute(table.assign(correct=table.total + 1), SMALL, strata(SMALL))


def test_logits_are_finite_and_even() -> None:
    total = np.array([0.0, 1.0, 50.0, 1e6])
    assert np.isfinite(logit(np.zeros(4), total)).all()
    assert logit(total, total) == pytest.approx(-logit(np.zeros(4), total))
    assert logit(np.array([300.0]), np.array([400.0])) == pytest.approx(np.log(3), abs=0.01)
    assert np.isnan(percent(np.zeros(1), np.zeros(1))).all()
    assert slope(np.array([0.5])) == pytest.approx(25)


def test_what_cannot_be_decomposed_says_why(table: pd.DataFrame) -> None:
    def reason(changed: pd.DataFrame) -> str:
        found = attribute(changed, SMALL, strata(SMALL))
        assert found.method == "none"
        assert not (found.shares or found.effects)
        return found.reason

    assert reason(table.assign(correct=table.total)) == "nothing varies: 100% in every trial"
    assert "within replicates" in reason(table.assign(correct=200.0 + 10 * table.replicate))
    assert "one replicate only" in reason(table[table.replicate == 0])
    few = MIN_SUPPORT - 1
    assert f"too few cells: {few}" in reason(table.assign(total=float(few), correct=table.correct.clip(upper=few)))
    never = table.assign(
        total=table.total.where(table.index > 1, 0.0), correct=table.correct.where(table.index > 1, 0.0)
    )
    assert "undefined in 2 of 72 trials" in reason(never)


def test_what_is_not_missing_at_random_is_refused(table: pd.DataFrame) -> None:
    layout = layout_for(SMALL)
    present = np.ones((5, layout.cells), dtype=bool)
    assert missing_not_at_random(present, layout) == ""
    present[[0, 2, 4], [0, 11, 20]] = False
    assert missing_not_at_random(present, layout) == ""
    largest = np.ones((5, layout.cells), dtype=bool)
    largest[:4, -8:-3] = False  # out of memory: query C in four replicates
    assert "failures go with query = C" in missing_not_at_random(largest, layout)
    one_run = np.ones((5, layout.cells), dtype=bool)
    one_run[0, :8] = False  # one failed pretraining is one accident, however many trials it takes along
    assert missing_not_at_random(one_run, layout) == ""
    lost = table[(table["query"] != "A") | table["scanvi.linear_classifier"] | (table["scanvi.max_epochs"] != 30)]
    found = attribute(lost, SMALL, strata(SMALL))
    assert found.method == "none"
    assert "2 of 24 design points have no result in any replicate" in found.reason
