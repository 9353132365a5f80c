"""A result is made of what it describes, in values that JSON gives back as they were."""

import json
from dataclasses import asdict

import numpy as np

from study.plan.condition import Condition
from study.plan.split import split_cells
from study.plan.trials import Replicate
from study.trials.metrics import measure
from study.trials.record import Predictions, Result
from tests.made import cells_of


def test_a_result_holds_plain_values_of_what_it_describes() -> None:
    some = cells_of([0, 1] * 30, 12)
    parts = split_cells(some, 0, 3, 51)
    assert parts.left_out.size == 1, "it would be a minibatch of its own"
    p = np.eye(2, dtype=np.float32)[np.arange(72) % 2]
    found = Result.of(
        "key",
        {"scvi": {"n_latent": 4}},
        Condition("asis", 12, draw=1),
        Replicate(index=4, seed=5, fold=1),
        3,
        some,
        "digest",
        parts,
        measure(p, some, parts),
        epochs={"pretraining": 2, "fine-tuning": 1},
        curves={},
        probes={},
        seconds=1.5,
    )
    assert (found.query, found.query_cells, found.seed, found.fold, found.folds) == ("asis", 12, 5, 1, 3)
    assert (found.classes, found.left_out) == (list(some.classes), parts.left_out.tolist())
    assert found.metrics["heldout/accuracy"] == 1
    assert found.confusion["heldout"] == [[10, 0], [0, 10]]
    assert Result(**json.loads(json.dumps(asdict(found)))) == found


def test_of_a_query_the_best_class_is_kept_and_without_one_nothing() -> None:
    for n_query in (12, 0):
        some = cells_of([0, 1] * 30, n_query)
        p = np.random.default_rng(0).dirichlet(np.ones(2), 60 + n_query).astype(np.float32)
        found = Predictions.of(p, split_cells(some, 0, 3, 128))
        assert np.array_equal(found.probabilities, p[:60])
        assert np.array_equal(found.query_label, p[60:].argmax(axis=1))
        assert np.array_equal(found.query_confidence, [max(row) for row in p[60:]])
        assert (found.query_label.dtype, found.query_confidence.dtype) == (np.uint16, np.float32)
        assert found.held_out.size == 20
