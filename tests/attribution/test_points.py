"""The trials of a random design: which runs they share, and columns that tell something new."""

import numpy as np
import pandas as pd
import pytest

from study.attribution.points import Trials, arrange_trials
from study.config.space import Domain
from study.plan.factors import Factor, strata

FACTORS = (
    Factor("query", ("A", "B", "C"), "data"),
    Factor("scvi.n_latent", (5, 10), "parameter"),
    Factor("scanvi.lr", (), "parameter", Domain(type="loguniform", low=1e-4, high=1e-2)),
)


def arranged(queries: str, latent: list[int]) -> Trials:
    """Return two replicates of some points, each with a rate of its own."""
    points = pd.DataFrame({"query": list(queries), "scvi.n_latent": latent})
    points["scanvi.lr"] = np.geomspace(1e-4, 1e-2, len(points))
    table = pd.concat([points.assign(replicate=r, correct=80.0 + r, total=100.0) for r in range(2)])
    return arrange_trials(table, FACTORS, strata(FACTORS))


def test_only_runs_that_are_shared_by_some_trials_are_units() -> None:
    trials = arranged("AABBCCAABBCC", [5] * 6 + [10] * 6)
    assert list(trials.runs) == ["pretraining"], "each rate is a fine-tuning of its own: a single trial"
    assert len(np.unique(trials.runs["pretraining"])) == 2 * 3 * 2
    assert len(np.unique(trials.point)) == 12
    alone = arranged("ABCABC", [5] * 3 + [10] * 3)
    assert alone.runs == {}, "each point has a pretraining of its own"


def test_columns_are_centred_and_numbers_on_the_scale_they_were_drawn_on() -> None:
    trials = arranged("AABBCCAABBCC", [5] * 6 + [10] * 6)
    assert {name: columns.shape[1] for name, columns in trials.mains.items()} == {
        "query": 2,
        "scvi.n_latent": 1,
        "scanvi.lr": 1,
    }
    for columns in trials.mains.values():
        assert columns.mean(axis=0) == pytest.approx(0)
    steps = np.diff(trials.mains["scanvi.lr"][:12, 0])
    assert steps == pytest.approx(steps[0]), "even steps of the logarithm"
    assert trials.group.tolist() == ["data"] * 2 + ["parameter"] * 2 + ["data x parameter"] * len(trials.products)


def test_products_that_the_points_cannot_tell_apart_are_left_out() -> None:
    # Query C is met with one size alone, so C x size is what is known already.
    trials = arranged("AABBCCAABBCC", [5, 10, 5, 10, 5, 5, 10, 5, 10, 5, 5, 5])
    sized = [product for product in trials.products if product[2] == "scvi.n_latent"]
    assert sized == [("query", 0, "scvi.n_latent", 0)]
    exog = np.column_stack([np.ones(len(trials.eta)), trials.columns])
    assert np.linalg.matrix_rank(exog) == exog.shape[1]
