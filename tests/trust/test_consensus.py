"""Labels of several trainings put together, by hand."""

import numpy as np
import pytest

from study.errors import InputError
from study.trials.evidence import Evidence
from study.trust.consensus import pool


def evidence(labels: list[list[int]], probabilities: list[list[float]], distance: list[float]) -> Evidence:
    return Evidence(
        np.array([], dtype=np.int64),
        np.array(labels, dtype=np.uint16),
        np.array(probabilities, dtype=np.float16),
        np.array(distance, dtype=np.float16),
    )


def test_a_consensus_is_the_mean_of_probabilities_and_not_the_most_votes() -> None:
    # Two trainings are a little for class 1, one is all for class 0; the second cell is agreed on.
    found = pool(
        [
            evidence([[0, 1, 2], [3, 0, 1]], [[1.0, 0.0, 0.0], [0.75, 0.125, 0.125]], [1.0, 2.0]),
            evidence([[1, 0, 2], [3, 0, 1]], [[0.5, 0.375, 0.125], [0.75, 0.125, 0.125]], [2.0, 2.0]),
            evidence([[1, 0, 2], [3, 0, 1]], [[0.5, 0.375, 0.125], [0.75, 0.125, 0.125]], [3.0, 2.0]),
        ],
        classes=4,
    )
    assert found.label.tolist() == [0, 3]
    assert found.score == pytest.approx([1.75 / 3, 0.75])
    assert found.agreement == pytest.approx([1 / 3, 1])
    assert found.distance.tolist() == [2, 2]
    assert found.trainings == 3


def test_what_the_best_classes_leave_is_shared_by_the_others() -> None:
    soft = evidence([[2, 0, 1]], [[0.5, 0.25, 0.125]], [1.0]).soft(5)
    assert soft[0] == pytest.approx([0.25, 0.125, 0.5, 0.0625, 0.0625])


def test_one_training_without_distances_leaves_none() -> None:
    old = evidence([[0, 0, 0]], [[0.5, 0.0, 0.0]], [])
    found = pool([old, evidence([[0, 1, 2]], [[1.0, 0.0, 0.0]], [1.0])], classes=3)
    assert found.label.tolist() == [0] and found.probabilities[0] == pytest.approx([0.75, 0.125, 0.125])
    assert np.isnan(found.distance).all()


def test_no_training_is_said() -> None:
    with pytest.raises(InputError, match="no training of this query is finished"):
        pool([], classes=2)
