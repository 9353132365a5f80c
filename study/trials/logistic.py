"""The yardstick: multinomial logistic regression on the reference alone, which no query can change."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from study.cells import Cells, log_normalised
from study.plan import Indices, PlannedTrial, Split, held_out
from study.trials.metrics import measure
from study.trials.record import Predictions, Result

# A yardstick needs no more labelled cells of a class; so it takes minutes at most, also on a large reference.
MOST_PER_CLASS = 2000
MOST_ITERATIONS = 1000


def fit_logistic(planned: PlannedTrial, cells: Cells, folds: int) -> tuple[Result, Predictions]:
    """Fit the yardstick: multinomial logistic regression on log-normalised counts of the reference's training cells.

    Parameters
    ----------
    planned
        The control trial; its condition has no query cells.
    cells
        Prepared cells of its query; only the reference is looked at.
    folds
        Number of parts of the reference.
    """
    start = time.perf_counter()
    fold = planned.replicate.fold
    alone = planned.condition.take(cells)
    out = held_out(alone.labels, fold, folds)
    nothing = np.array([], dtype=np.int64)
    parts = Split(np.flatnonzero(~out), np.flatnonzero(out), nothing, alone.n_reference, alone.unlabelled)
    features = log_normalised(alone.counts)
    rows = _some_of_each(alone.labels, parts.labelled, fold)
    from sklearn.linear_model import LogisticRegression  # slow to import

    model = LogisticRegression(max_iter=MOST_ITERATIONS).fit(features[rows], alone.labels[rows])
    probabilities = np.zeros((alone.n_reference, len(alone.classes)), dtype=np.float32)
    probabilities[:, model.classes_] = model.predict_proba(features)
    result = Result.of(
        planned.key,
        {"logistic": {"penalty": "l2", "C": 1.0, "max_iter": MOST_ITERATIONS, "most_per_class": MOST_PER_CLASS}},
        planned.condition,
        planned.replicate,
        folds,
        alone,
        alone.digest(),
        parts,
        measure(probabilities, alone, parts),
        epochs={},
        curves={},
        probes={"iterations": int(model.n_iter_.max())},
        seconds=time.perf_counter() - start,
    )
    return result, Predictions.of(probabilities, parts)


def _some_of_each(labels: npt.NDArray[np.int32], train: Indices, fold: int) -> Indices:
    """At most `MOST_PER_CLASS` training rows of each class, in order."""
    order = np.random.default_rng(fold).permutation(train)
    kept = [order[labels[order] == code][:MOST_PER_CLASS] for code in np.unique(labels[train])]
    return np.sort(np.concatenate(kept))
