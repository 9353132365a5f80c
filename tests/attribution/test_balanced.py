"""What a decomposed table says beside its shares: what replicates differ in, and where little is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from study.attribution.balanced import block_variances
from study.attribution.layout import (
    squares,
)
from study.plan.factors import strata
from tests.made import attribute
from tests.simulated_tables import (
    SMALL,
    frame_of,
    layout_for,
)


def test_seeds_and_folds_crossed_split_the_block() -> None:
    layout = layout_for(SMALL)
    rng = np.random.default_rng(5)
    seeds, folds = (grid.ravel() for grid in np.meshgrid(range(3), range(8), indexing="ij"))
    parts = []
    for _ in range(400):
        block = rng.normal(scale=0.3, size=3)[seeds] + rng.normal(scale=0.4, size=8)[folds]
        eta = 1 + (block + rng.normal(scale=0.7, size=24))[:, None] + rng.normal(scale=0.3, size=(24, layout.cells))
        root = float(squares(eta, layout).error_mean_squares[0])
        found = block_variances(eta.mean(axis=1), root, seeds, folds, layout)
        parts.append([found["seed"], found["fold"], found["both"]])
    table = frame_of(1e6 * expit(eta), np.full(eta.shape, 1e6), SMALL)
    table["seed"], table["fold"] = seeds[table.replicate], folds[table.replicate]
    block_found = attribute(table, SMALL, strata(SMALL)).block
    assert block_found is not None
    assert [block_found.seed, block_found.fold, block_found.both] == pytest.approx(parts[-1], abs=1e-3)
    error = np.std(parts, axis=0) / np.sqrt(len(parts))
    assert np.abs((np.mean(parts, axis=0) - [0.09, 0.16, 0.49]) / error).max() < 4


def test_seed_and_fold_together_are_one_block(table: pd.DataFrame) -> None:
    block = attribute(table, SMALL, strata(SMALL)).block
    assert block is not None
    assert (block.seed, block.fold, block.both) == (None, None, None)


def test_a_stratum_with_few_degrees_of_freedom_says_so(table: pd.DataFrame) -> None:
    pretraining, fine_tuning, _ = attribute(table, SMALL, strata(SMALL)).chance
    assert pretraining.note.startswith("3 query x 3 replicates: 4 degrees of freedom")
    assert fine_tuning.note == ""
