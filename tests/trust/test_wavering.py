"""What disagreement comes from, where it was put in."""

import itertools

import numpy as np
import pytest

from study.plan.factors import Factor, strata
from study.trust.wavering import wavering

FACTORS = (Factor("query", ("a", "b"), "data"), Factor("scanvi.linear_classifier", (True, False), "parameter"))


def test_each_source_is_found_where_it_alone_changes_labels() -> None:
    replicates = 4
    points = list(itertools.product(range(2), range(2)))
    labels = np.zeros((replicates, len(points), 5), dtype=np.uint16)
    for at, (query, setting) in enumerate(points):
        labels[:, at, 1] = query
        labels[:, at, 2] = setting
        labels[:, at, 3] = np.arange(replicates) % 2  # another seed
        labels[:, at, 4] = query & setting
    found = wavering(labels, 3, FACTORS, strata(FACTORS))
    shares = found.shares()
    assert np.isnan(shares[0]).all(), "all agree"
    assert shares[1].tolist() == [0, 0, 1] and shares[2].tolist() == [0, 1, 0] and shares[3].tolist() == [1, 0, 0]
    # One of four points differs: a half each of two main effects and their product, as in any 2 x 2 table.
    assert shares[4] == pytest.approx([0, 0.5, 0.5])
    # The share of pairs of points that disagree: 1/2 of pairs drawn with return, for a label that halves them.
    assert found.variances[1].sum() == pytest.approx(0.5)
    assert found.shares(np.array([0, 1, 1, 2, 2]))[1] == pytest.approx([0, 0.5, 0.5])


def test_chance_alone_is_not_taken_for_a_setting() -> None:
    labels = np.random.default_rng(0).integers(0, 2, (3, 4, 3000)).astype(np.uint16)
    found = wavering(labels, 2, FACTORS, strata(FACTORS))
    again, settings, data = found.shares(np.zeros(3000, dtype=int))[0]
    assert again > 0.95 and settings < 0.03 and data < 0.03


def test_without_settings_it_is_all_training_again() -> None:
    labels = np.array([[[0, 0]], [[0, 1]], [[0, 2]]], dtype=np.uint16)
    found = wavering(labels, 3, (), ())
    assert found.shares()[1].tolist() == [1, 0, 0] and found.variances[1] == pytest.approx([1.0])


def test_one_replicate_cannot_tell() -> None:
    with pytest.raises(ValueError, match="one replicate"):
        wavering(np.zeros((1, 4, 2), dtype=np.uint16), 2, FACTORS, strata(FACTORS))
