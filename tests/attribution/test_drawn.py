"""Random designs: numbers from ranges, the same points in every replicate, trainings shared among points."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from study.attribution.attribute import attribute_study
from study.attribution.correction import holm
from study.attribution.findings import Attribution, Effect
from study.config.space import Domain
from study.plan.factors import Factor, strata
from study.verdict.sentences import judge
from tests.made import attribute

FACTORS = (
    Factor("query", ("A", "B", "C"), "data"),
    Factor("scanvi.lr", (), "parameter", Domain(type="loguniform", low=np.exp(-7), high=np.exp(-3))),
    Factor("scanvi.linear_classifier", (True, False), "parameter"),
)


def planted(points: pd.DataFrame, by_lr: float = 0, by_query: float = 0, by_both: float = 0) -> np.ndarray:
    """Return what is planted at each point, on the logit scale; `by_both` has no mean over the queries."""
    query, nonlinear = points["query"].to_numpy(), ~points["scanvi.linear_classifier"].to_numpy(dtype=bool)
    by_number = by_lr * (np.log(points["scanvi.lr"].to_numpy()) + 5)
    return np.asarray(by_number + by_query * (query == "C") + by_both * np.where(query == "A", 2, -1) * nonlinear)


def table_of(seed: int, by_point: float = 0.0, points: int = 30, **effects: float) -> pd.DataFrame:
    """Return three replicates of random points; trials of a query share a pretraining in each."""
    rng = np.random.default_rng(seed)
    drawn = pd.DataFrame(
        {
            "query": rng.choice(["A", "B", "C"], points),
            "scanvi.lr": np.exp(rng.uniform(-7, -3, points)),
            "scanvi.linear_classifier": rng.choice([True, False], points),
        }
    )
    query = drawn["query"].map({"A": 0, "B": 1, "C": 2}).to_numpy()
    fixed = planted(drawn, **effects) + by_point * rng.normal(size=points)
    parts = []
    for r in range(3):
        eta = 1.5 + rng.normal() * 0.5 + rng.normal(size=3)[query] * 0.4 + rng.normal(size=points) * 0.2 + fixed
        parts.append(drawn.assign(replicate=r, seed=r, fold=r, correct=1e6 * expit(eta), total=1e6))
    return pd.concat(parts, ignore_index=True)


def truth(table: pd.DataFrame, effect: Effect, **effects: float) -> float:
    """Return what an effect is worth in points: a factor set to each of two levels in all trials of a table."""
    rest = logit(table["correct"] / table["total"]) - planted(table, **effects)
    level, baseline = (
        expit(rest + planted(table.assign(**{effect.factor: one}), **effects)).mean()
        for one in (effect.level, effect.baseline)
    )
    return 100 * float(level - baseline)


def found_in(table: pd.DataFrame) -> Attribution:
    found = attribute(table, FACTORS, strata(FACTORS))
    assert found.method == "mixed model"
    return found


def test_a_number_that_acts_is_found_with_its_values() -> None:
    table = table_of(0, by_lr=0.6)
    found = found_in(table)
    largest = found.effects[0]
    low, high = (np.quantile(table["scanvi.lr"], q, method="nearest") for q in (0.1, 0.9))
    assert (largest.factor, largest.level, largest.baseline) == ("scanvi.lr", high, low)
    assert largest.real
    assert largest.lower > 0
    assert found.share("parameter").lower > 0
    assert sum(share.share for share in found.shares) == pytest.approx(1)


@pytest.mark.parametrize(
    "effects", [{"by_both": 1.5}, {"by_query": -6.0}, {"by_lr": 1.5}, {"by_query": -2.0, "by_lr": 0.6, "by_both": 0.5}]
)
def test_effects_are_means_over_all_else(effects: dict[str, float]) -> None:
    # A parameter that acts otherwise in each query, and effects as large as the scale.
    held, bias = [], []
    for seed in range(20):
        table = table_of(seed, **effects)
        for one in found_in(table).effects:
            expected = truth(table, one, **effects)
            held.append(one.lower <= expected <= one.upper)
            bias.append(one.points - expected)
            assert -100 <= one.lower <= one.points <= one.upper <= 100
    assert np.mean(held) > 0.85
    assert abs(np.mean(bias)) < 1


def test_points_that_share_a_training_do_not_blame_the_query() -> None:
    blamed = [found_in(table_of(seed)).share("data").p < 0.05 for seed in range(30)]  # type: ignore[operator]
    assert np.mean(blamed) < 0.2
    acting = [found_in(table_of(seed, by_query=-2.0)).share("data").p < 0.05 for seed in range(8)]  # type: ignore[operator]
    assert np.mean(acting) > 0.5


def test_what_recurs_without_a_simple_form_is_a_group_of_its_own() -> None:
    shares = [found_in(table_of(seed, by_point=0.8)) for seed in range(8)]
    assert np.mean([one.share("other repeatable").share for one in shares]) > 0.5
    assert np.mean([one.share("chance").share for one in shares]) < 0.4


def test_refusals_of_a_random_design_say_why() -> None:
    table = table_of(0)
    lost = table["scanvi.lr"] == table["scanvi.lr"].iloc[0]
    failed = table.assign(correct=table.correct.where(~lost))
    reasons = {
        "1 of 30 design points": failed,
        "one replicate only": table[table.replicate == 0],
        "too few cells": table.assign(correct=5.0, total=9.0),
        "nothing varies": table.assign(correct=table.total),
        "too few points": table_of(0, points=6),
    }
    for reason, part in reasons.items():
        found = attribute(part, FACTORS, strata(FACTORS))
        assert found.method == "none"
        assert reason in found.reason


def test_the_card_of_a_random_design() -> None:
    table = pd.concat([table_of(0, by_lr=0.6).assign(class_name="B"), table_of(1).assign(class_name="T")]).assign(
        outcome="heldout/recall"
    )
    study = attribute_study(table, FACTORS, strata(FACTORS))
    card = judge(study, "heldout/recall")
    assert "scanvi.lr = 0.0" in card.which
    both = [effect for one in study.attributions for effect in one.effects]
    assert all(effect.p_adjusted >= effect.p for effect in both)
    assert any(effect.p_adjusted > effect.p for effect in both)


def test_p_values_are_those_of_holm_over_all_classes_of_an_outcome() -> None:
    tables = [table_of(seed, by_lr=0.1 * seed).assign(class_name=f"c{seed}") for seed in range(3)]
    other = table_of(9).assign(class_name="c0", outcome="train/recall")
    table = pd.concat([*(one.assign(outcome="heldout/recall") for one in tables), other])
    study = attribute_study(table, FACTORS, strata(FACTORS))
    assert [one.outcome for one in study.attributions] == [*["heldout/recall"] * 3, "train/recall"]
    # Three tables share four fifths of the error, the other outcome has one fifth.
    for kind in ("effects", "shares"):
        tested = [[one for one in getattr(found, kind) if one.p is not None] for found in study.attributions]
        weights = np.repeat([0.8 / 3] * 3 + [0.2], [len(one) for one in tested])
        flat = [one for found in tested for one in found]
        expected = holm(np.array([one.p for one in flat]), weights)
        assert [one.p_adjusted for one in flat] == pytest.approx(expected)


def test_what_was_never_drawn_is_named() -> None:
    table = table_of(0)
    never = table[table["query"] != "B"]
    assert attribute(never, FACTORS, strata(FACTORS)).reason.startswith("query = B was never drawn, or has no result")
    same = table.assign(**{"scanvi.lr": 0.01})
    assert attribute(same, FACTORS, strata(FACTORS)).reason == "scanvi.lr came out as 0.01 in every point"
