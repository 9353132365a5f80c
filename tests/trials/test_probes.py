"""Probes: what a trained model shows beside its metrics."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from study.trials.probes import energy_distance
from study.trials.tables import probe_frame
from tests.made import TWO_BY_TWO, planned, some_result


def test_energy_distance_is_zero_for_equals_and_grows_with_distance() -> None:
    random = np.random.default_rng(0)
    one, other = (random.normal(size=(400, 5)).astype(np.float32) for _ in range(2))
    assert abs(energy_distance(one, other)) < 0.02
    near, far = (energy_distance(one, other + np.float32(shift)) for shift in (1, 3))
    assert 0.1 < near < far
    assert energy_distance(10 * one, 10 * (other + np.float32(1))) == pytest.approx(near, rel=1e-4), "no unit"


def test_probes_are_a_tidy_table() -> None:
    made = planned(TWO_BY_TWO, replicates=1)
    key = made.trials[0].key
    values: Mapping[str, object] = {"steps": 4, "draws_per_cell": {"a": 1.5, "b": 2.0}}
    table = probe_frame(made, {key: some_result(key=key, probes=values)})
    found = table[["probe", "class_name", "value"]].to_numpy().tolist()
    assert found == [["steps", "", 4.0], ["draws_per_cell", "a", 1.5], ["draws_per_cell", "b", 2.0]]
    assert set(table["trial_key"]) == {key} and isinstance(table, pd.DataFrame)
