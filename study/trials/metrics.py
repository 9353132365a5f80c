"""Predictions in, per-class metrics out; and what metrics are called.

Recall of a class is correct among cells truly of it, precision correct among cells called it. The forum's "accuracy"
is the precision on cells that the model trained on: `train/precision/<class>` here. So a name says on which part of the
cells, what is measured, and in some metrics of which class. Results on disk hold these names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from study.cells import Cells
from study.plan import Split

# Parts of the cells: labelled reference cells that no stage saw, those that all trained on, query cells of known truth.
HELD_OUT, TRAIN, QUERY = "heldout", "train", "query"
# What is measured of each class.
MEASURES = RECALL, PRECISION, F1, SUPPORT = "recall", "precision", "f1", "support"
# What is measured of all of them; the first two are one number by definition, and both are looked for.
MACRO_RECALL, BALANCED_ACCURACY, MACRO_F1, ACCURACY = "macro_recall", "balanced_accuracy", "macro_f1", "accuracy"
NLL, BRIER, ECE = "nll", "brier", "ece"
# Names of what sums up all classes, in brackets as no class is likely to be.
MACRO, OVERALL = "(macro)", "(overall)"
ECE_BINS = 15
CHUNK = 10_000  # cells


@dataclass(frozen=True)
class Evaluation:
    """What one trial got right.

    Attributes
    ----------
    metrics
        By name, see `metric`. What is undefined (no cell of a class, or none called it) is absent.
    confusion
        Counts by part, shape (n_true_classes, n_classes), rows = true, columns = predicted. For the query the rows
        go on with labels that the reference lacks.
    """

    metrics: dict[str, float]
    confusion: dict[str, npt.NDArray[np.int64]]


def metric(*words: str) -> str:
    """Return the name of a metric: the part, what is measured and the class, as many of them as there are, in order."""
    return "/".join(words)


def reestimated(part: str, measured: str) -> str:
    """Return the name of the probe that is a metric once more, under statistics of BatchNorm taken again."""
    return f"reestimated_{part}_{measured}"


def measure(probabilities: npt.NDArray[np.float32], cells: Cells, parts: Split) -> Evaluation:
    """Evaluate the predictions of one trial.

    Parameters
    ----------
    probabilities
        Shape (n_rows, n_classes), rows as in `cells.counts`.
    cells
        The condition.
    parts
        Its training and held-out rows.
    """
    from sklearn.metrics import confusion_matrix  # slow to import

    query = np.flatnonzero(cells.truth >= 0)
    rows = {
        HELD_OUT: (parts.held_out, cells.labels[parts.held_out], cells.classes),
        TRAIN: (parts.labelled, cells.labels[parts.labelled], cells.classes),
        QUERY: (query + cells.n_reference, cells.truth[query], cells.truth_classes),
    }
    metrics: dict[str, float] = {}
    confusion = {}
    for part, (where, truth, true_classes) in rows.items():
        if where.size == 0:
            continue
        called = probabilities[where].argmax(axis=1)
        matrix = confusion_matrix(truth, called, labels=np.arange(len(true_classes)))[:, : len(cells.classes)]
        confusion[part] = matrix.astype(np.int64)
        found = class_metrics(matrix, true_classes)
        known = truth < len(cells.classes)
        if known.any():
            found |= probability_metrics(probabilities[where[known]], truth[known])
        metrics |= {metric(part, name): value for name, value in found.items()}
    return Evaluation(metrics, confusion)


def class_metrics(matrix: npt.NDArray[np.int64], true_classes: tuple[str, ...]) -> dict[str, float]:
    """Return recall, precision, F1 and support per class, and their summaries, by name without the part.

    Parameters
    ----------
    matrix
        Counts, shape (n_true_classes, n_classes), rows = true. The first rows are the columns' classes.
    true_classes
        Names of the rows.

    Notes
    -----
    Macro recall is the mean over classes with cells; `fixed` makes it one over the same classes in every trial.
    """
    n = matrix.shape[1]
    support, called, correct = matrix.sum(axis=1), matrix.sum(axis=0), np.diag(matrix)
    metrics: dict[str, float] = {}
    recalls, f1s = [], []
    for code, name in enumerate(true_classes):
        metrics[metric(SUPPORT, name)] = float(support[code])
        if code >= n:
            continue
        if called[code]:
            metrics[metric(PRECISION, name)] = float(correct[code] / called[code])
        if support[code]:
            recalls.append(float(correct[code] / support[code]))
            f1s.append(float(2 * correct[code] / (support[code] + called[code])))
            metrics[metric(RECALL, name)], metrics[metric(F1, name)] = recalls[-1], f1s[-1]
    metrics[ACCURACY] = float(correct.sum() / matrix.sum())
    if recalls:
        metrics[MACRO_RECALL] = metrics[BALANCED_ACCURACY] = float(np.mean(recalls))
        metrics[MACRO_F1] = float(np.mean(f1s))
    return metrics


def probability_metrics(probabilities: npt.NDArray[np.float32], truth: npt.NDArray[np.int32]) -> dict[str, float]:
    """Return negative log likelihood, Brier score and expected calibration error, by name without the part.

    Parameters
    ----------
    probabilities
        Shape (n_cells, n_classes).
    truth
        Class codes, shape (n_cells,).

    Notes
    -----
    Brier: mean over cells of the squared distance to the one-hot truth (0 to 2). ECE (Naeini et al. 2015): 15 bins of
    equal width over the confidence.
    """
    of_truth = probabilities[np.arange(truth.size), truth].astype(np.float64)
    confidence, correct = probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == truth
    squares, one_hot = np.empty(truth.size), np.eye(probabilities.shape[1])
    for start in range(0, truth.size, CHUNK):  # all at once they would take many times the memory of the probabilities
        rows = slice(start, start + CHUNK)
        squares[rows] = ((probabilities[rows] - one_hot[truth[rows]]) ** 2).sum(axis=1)
    return {
        NLL: float(-np.log(np.maximum(of_truth, np.finfo(np.float32).tiny)).mean()),
        BRIER: float(squares.mean()),
        ECE: calibration_error(confidence, correct),
    }


def calibration_error(confidence: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]) -> float:
    """Return the expected calibration error: mean gap between confidence and accuracy, by bins of equal width.

    Parameters
    ----------
    confidence
        Probability of the class that each cell is called, shape (n_cells,).
    correct
        Whether it is of that class, shape (n_cells,).
    """
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.abs(np.bincount(bins, correct, minlength=ECE_BINS) - np.bincount(bins, confidence, minlength=ECE_BINS))
    return float(gaps.sum() / correct.size)
