"""Two paired studies: what units of a replicate share is no certainty; steady classes are not told by unsteady ones."""

import numpy as np
import pytest
from scipy.special import expit, logit

from study.attribution.effects import Contrast, weights_of
from study.attribution.layout import Floats, layout_of
from study.attribution.paired import compare_paired
from study.attribution.tables import ClassTable
from study.plan.factors import Factor, strata
from study.verdict.drift import STUDY, A, B
from tests.simulated_tables import default_design

PAIRS, REPLICATES, CELLS = 200, 5, 500
EVERY = (Factor(STUDY, (A, B), "parameter"), *default_design())
LAYOUT = layout_of(EVERY, strata(EVERY))
WEIGHTS = weights_of([Contrast("marginal", STUDY, B, A)], LAYOUT)[0]


def p_values(shared: float, lost: float, random: np.random.Generator) -> Floats:
    """Compare a steady class that loses some points, and three whose replicates scatter as a whole."""
    index, tables, half = np.arange(REPLICATES), [], LAYOUT.cells // 2
    for number, scatter in enumerate((0.03, shared, shared, shared)):
        eta = logit(0.9) + random.normal(scale=0.1, size=(REPLICATES, LAYOUT.cells))
        eta[:, half:] += random.normal(scale=scatter, size=(REPLICATES, 1))
        share = expit(eta)
        share[:, half:] -= lost / 100 * (number == 0)
        total = np.full(share.shape, float(CELLS))
        tables.append(ClassTable(random.binomial(CELLS, share).astype(float), total, index, index))
    arrays = (np.stack([getattr(one, name) for one in tables]) for name in ("eta", "points", "slopes"))
    return compare_paired(WEIGHTS, *arrays, np.ones(len(tables), bool), LAYOUT).p


@pytest.mark.parametrize("shared", [0.02, 0.5])
def test_a_training_seed_that_all_units_share_is_no_difference(shared: float) -> None:
    random = np.random.default_rng(0)
    flagged = np.mean([4 * p_values(shared, 0.0, random).min() <= 0.05 for _ in range(PAIRS)])
    assert flagged <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / PAIRS)


def test_a_steady_class_is_found_beside_unsteady_ones() -> None:
    random = np.random.default_rng(0)
    found = np.array([4 * p_values(0.5, 3.0, random) <= 0.05 for _ in range(PAIRS)])
    assert found[:, 0].mean() >= 0.95 and found[:, 1:].any(axis=1).mean() <= 0.1
