"""Trainings that fell out of their siblings' range: found where they are, and nowhere else."""

from __future__ import annotations

import numpy as np

from study.trials.record import Result
from study.verdict.collapses import collapse_words, find_collapses
from tests.made import planned, some_result

FACTORS = "{scanvi.max_epochs: {levels: [1, 2]}, scanvi.linear_classifier: {levels: [true, false]}}"


def results(replicates: int, fallen: dict[int, float], spread: float = 0.01, seed: int = 0) -> dict[str, Result]:
    """Trials whose points and replicates differ, and some of which fall by so much."""
    made, random = planned(FACTORS, replicates=replicates), np.random.default_rng(seed)
    found = {}
    for at, trial in enumerate(made.trials):
        level = 0.85 + 0.05 * bool(trial.levels["scanvi.linear_classifier"]) - 0.02 * trial.replicate.index
        value = level + random.normal(0, spread) - fallen.get(at, 0)
        metrics = {"heldout/accuracy": value, "train/accuracy": value}
        found[trial.key] = some_result(key=trial.key, metrics=metrics)
    return found


def test_a_collapse_is_found_and_said_with_the_verdict_without_it() -> None:
    made, found = planned(FACTORS, replicates=4), results(4, {5: 0.3})
    table = find_collapses(made, found)
    assert set(table["trial_key"]) == {made.trials[5].key} and set(table["metric"]) == {
        "heldout/accuracy", "train/accuracy"
    }  # fmt: skip
    assert ((table["expected"] - table["found"]).to_numpy() > 25).all()
    said = collapse_words(table, len(found), ["Single runs differ by chance."])
    assert (
        said[0].startswith("1 of 16 trainings collapsed") and said[1] == "Without them: Single runs differ by chance."
    )


def test_what_only_scatters_is_no_collapse() -> None:
    made = planned(FACTORS, replicates=5)
    named = [len(find_collapses(made, results(5, {}, 0.02, seed))) for seed in range(60)]
    assert not any(named)
    assert find_collapses(made, results(5, {3: 0.08}, 0.001)).empty, "8 points are no collapse"
    assert collapse_words(find_collapses(made, results(5, {})), 20, []) == []


def test_two_replicates_do_not_tell_which_one_fell() -> None:
    assert find_collapses(planned(FACTORS, replicates=2), results(2, {1: 0.5})).empty
