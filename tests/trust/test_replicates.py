"""Replicates pooled: what they have in common counts once, what each saw of its own adds up."""

import numpy as np
import pytest

from study.trials.metrics import calibration_error
from study.trust.replicates import together


def replicates(k: int, n: int, alike: float, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """What k calibrated replicates say of n cells of two classes: they scatter about what very many would say."""
    random = np.random.default_rng(seed)
    centre = random.normal(0, 3, n)
    truth = (random.random(n) < 1 / (1 + np.exp(-centre))).astype(int)
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    said = []
    for _ in range(k):
        seen = centre + random.normal(0, 3 * np.sqrt((1 - alike) / alike), n)
        likely = 1 / (1 + np.exp(-(alike * seen[:, None] + 3 * np.sqrt(1 - alike) * nodes)))
        of_one = likely @ weights / weights.sum()
        said.append(np.stack([1 - of_one, of_one], axis=1))
    return said, truth


def test_replicates_that_say_the_same_are_one() -> None:
    (said,), _ = replicates(1, 500, 0.5)
    rows = np.arange(500)
    assert together([(rows, said)] * 4) == pytest.approx(together([(rows, said)]), abs=1e-9)
    assert together([(rows, said)]) == pytest.approx(np.clip(said, 0.0005, 0.9995), abs=1e-3)


@pytest.mark.parametrize("alike", [0.5, 0.7, 0.9])
def test_what_replicates_say_together_is_as_sure_as_it_is_right(alike: float) -> None:
    said, truth = replicates(6, 20_000, alike)
    rows = np.arange(20_000)
    pooled = together([(rows, one) for one in said])
    mean = np.mean(said, axis=0)
    right = pooled.argmax(axis=1) == truth
    gap = (pooled.max(axis=1) - right).mean()
    assert -0.06 < gap < 0.005, "rather too careful than too sure"
    of_mean = calibration_error(mean.max(axis=1), mean.argmax(axis=1) == truth)
    assert calibration_error(pooled.max(axis=1), right) < 0.5 * of_mean


def test_a_cell_that_one_replicate_was_asked_about_keeps_what_that_said() -> None:
    """Each held-out cell is held out by some replicates only."""
    (first, second), _ = replicates(2, 300, 0.5)
    some = np.arange(100, 300)
    pooled = together([(np.arange(300), first), (some, second[some])])
    assert pooled[:100] == pytest.approx(first[:100], abs=2e-3)
    both = np.sign(first[some, 1] - 0.5) == np.sign(second[some, 1] - 0.5)
    surer = pooled[some].max(axis=1) > (first[some].max(axis=1) + second[some].max(axis=1)) / 2
    assert surer[both].mean() > 0.9
