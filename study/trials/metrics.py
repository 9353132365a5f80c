"""Predictions in, per-class metrics out.

Recall of a class is correct among cells truly of it, precision correct among cells called it. The forum's "accuracy"
is the precision on cells that the model trained on: `train/precision/<class>` here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix

from study.cells import Cells
from study.plan import Split

ECE_BINS = 15
CHUNK = 10_000  # cells
# Names of what sums up all classes, in brackets as no class is likely to be.
MACRO, OVERALL = "(macro)", "(overall)"
Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Evaluation:
    """What one trial got right.

    Attributes
    ----------
    metrics
        ``<part>/<metric>`` and ``<part>/<metric>/<class>``; parts are heldout, train and query (where truth is known).
        What is undefined (no cell of a class, or none called it) is absent.
    confusion
        Counts by part, shape (n_true_classes, n_classes), rows = true, columns = predicted. For the query the rows
        go on with labels that the reference lacks.
    """

    metrics: dict[str, float]
    confusion: dict[str, npt.NDArray[np.int64]]


def measure(probabilities: Floats, cells: Cells, parts: Split) -> Evaluation:
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
    query = np.flatnonzero(cells.truth >= 0)
    rows = {
        "heldout": (parts.held_out, cells.labels[parts.held_out], cells.classes),
        "train": (parts.labelled, cells.labels[parts.labelled], cells.classes),
        "query": (query + cells.n_reference, cells.truth[query], cells.truth_classes),
    }
    metrics: dict[str, float] = {}
    confusion = {}
    for part, (where, truth, true_classes) in rows.items():
        if where.size == 0:
            continue
        called = probabilities[where].argmax(axis=1)
        matrix = confusion_matrix(truth, called, labels=np.arange(len(true_classes)))[:, : len(cells.classes)]
        confusion[part] = matrix.astype(np.int64)
        metrics |= {f"{part}/{name}": value for name, value in class_metrics(matrix, true_classes).items()}
        known = truth < len(cells.classes)
        if known.any():
            scores = probability_metrics(probabilities[where[known]], truth[known])
            metrics |= {f"{part}/{name}": value for name, value in scores.items()}
    return Evaluation(metrics, confusion)


def class_metrics(matrix: npt.NDArray[np.int64], true_classes: tuple[str, ...]) -> dict[str, float]:
    """Return recall, precision, F1 and support per class, and their summaries.

    Parameters
    ----------
    matrix
        Counts, shape (n_true_classes, n_classes), rows = true. The first rows are the columns' classes.
    true_classes
        Names of the rows.

    Notes
    -----
    Macro recall is the mean over classes with cells; balanced accuracy is the same number by definition and is given
    under both names because both are looked for.
    """
    n = matrix.shape[1]
    support, called, correct = matrix.sum(axis=1), matrix.sum(axis=0), np.diag(matrix)
    metrics: dict[str, float] = {}
    recalls, f1s = [], []
    for code, name in enumerate(true_classes):
        metrics[f"support/{name}"] = float(support[code])
        if code >= n:
            continue
        if called[code]:
            metrics[f"precision/{name}"] = float(correct[code] / called[code])
        if support[code]:
            recalls.append(float(correct[code] / support[code]))
            f1s.append(float(2 * correct[code] / (support[code] + called[code])))
            metrics[f"recall/{name}"], metrics[f"f1/{name}"] = recalls[-1], f1s[-1]
    metrics["accuracy"] = float(correct.sum() / matrix.sum())
    if recalls:
        metrics["macro_recall"] = metrics["balanced_accuracy"] = float(np.mean(recalls))
        metrics["macro_f1"] = float(np.mean(f1s))
    return metrics


def probability_metrics(probabilities: Floats, truth: Codes) -> dict[str, float]:
    """Return negative log likelihood, Brier score and expected calibration error.

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
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.abs(np.bincount(bins, correct, minlength=ECE_BINS) - np.bincount(bins, confidence, minlength=ECE_BINS))
    return {
        "nll": float(-np.log(np.maximum(of_truth, np.finfo(np.float32).tiny)).mean()),
        "brier": float(squares.mean()),
        "ece": float(gaps.sum() / truth.size),
    }
