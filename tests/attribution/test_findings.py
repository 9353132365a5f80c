"""What attribution finds, as tidy tables."""

from __future__ import annotations

import pandas as pd
import pytest

from study.attribution.attribute import attribute_study
from study.plan.factors import strata
from tests.simulated_tables import (
    SMALL,
)


def test_frames_hold_every_number(table: pd.DataFrame) -> None:
    long = pd.concat(
        [
            table.assign(outcome="heldout/recall", class_name="B cell"),
            table.assign(outcome="heldout/recall", class_name="rare", total=9.0, correct=3.0),
        ]
    )
    study = attribute_study(long, SMALL, strata(SMALL))
    frames = study.to_frames()
    assert list(frames) == ["tables", "shares", "chance", "block", "means", "effects", "anova", "sensitivity"]
    assert list(frames["tables"].method) == ["balanced", "none"]
    assert set(frames["shares"].class_name) == {"B cell"}
    found = study.of("heldout/recall", "B cell")
    assert frames["shares"].share.tolist() == [share.share for share in found.shares]
    assert len(frames["effects"]) == len(found.effects)
    ss = frames["anova"].groupby("stratum").df.sum()
    assert ss.sum() == 3 * (24 - 1)
    with pytest.raises(KeyError):
        study.of("heldout/recall", "T cell")
