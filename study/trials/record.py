"""One finished trial: its result, its predictions, and what they were made with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from study.cells import Cells
from study.plan import Condition, Indices, Replicate, Split
from study.trials.metrics import Evaluation
from study.versions import versions


@dataclass(frozen=True)
class Result:
    """One finished trial; everything in it follows from its key, but `seconds`, `finished` and `made_with`."""

    key: str
    settings: dict[str, Any]
    query: str
    query_cells: int
    seed: int
    fold: int
    folds: int
    digest: str
    epochs: dict[str, int]
    classes: list[str]
    truth_classes: list[str]
    metrics: dict[str, float]
    confusion: dict[str, list[list[int]]]
    curves: dict[str, list[float]]
    probes: dict[str, Any]
    left_out: list[int]
    seconds: float
    predictions: str = ""
    evidence: str = ""
    finished: float = field(default_factory=time.time)
    made_with: dict[str, str] = field(default_factory=versions)

    @classmethod
    def of(
        cls,
        key: str,
        settings: dict[str, Any],
        condition: Condition,
        replicate: Replicate,
        folds: int,
        cells: Cells,
        digest: str,
        parts: Split,
        evaluation: Evaluation,
        *,
        epochs: dict[str, int],
        curves: dict[str, list[float]],
        probes: dict[str, Any],
        seconds: float,
    ) -> Result:
        """Make a result in plain values, as JSON holds them.

        Parameters
        ----------
        settings
            As the trial was really trained.
        cells, digest
            Those of the condition.
        parts
            Which of them it trained on.
        evaluation
            What it got right.
        epochs
            By kind of stage, those before included.
        """
        return cls(
            key=key,
            settings=settings,
            query=condition.query,
            query_cells=condition.n_cells,
            seed=replicate.seed,
            fold=replicate.fold,
            folds=folds,
            digest=digest,
            epochs=epochs,
            classes=list(cells.classes),
            truth_classes=list(cells.truth_classes),
            metrics=evaluation.metrics,
            confusion={part: matrix.tolist() for part, matrix in evaluation.confusion.items()},
            curves=curves,
            probes=probes,
            left_out=[int(row) for row in parts.left_out],
            seconds=seconds,
        )


@dataclass(frozen=True)
class Predictions:
    """Predictions of one trial, for any metric that is thought of later.

    Attributes
    ----------
    probabilities
        Of the reference cells, shape (n_reference, n_classes).
    query_label, query_confidence
        Class code and largest probability of the query cells, shape (n_query,).
    held_out
        Rows of the held-out reference cells.
    """

    probabilities: npt.NDArray[np.float32]
    query_label: npt.NDArray[np.uint16]
    query_confidence: npt.NDArray[np.float32]
    held_out: Indices

    @classmethod
    def of(cls, probabilities: npt.NDArray[np.float32], parts: Split) -> Predictions:
        """Keep probabilities of all cells, shape (n_rows, n_classes); of the query, which may be large, the best."""
        query = probabilities[parts.n_reference :]
        return cls(
            probabilities=probabilities[: parts.n_reference],
            query_label=query.argmax(axis=1).astype(np.uint16),
            query_confidence=query.max(axis=1, initial=0),
            held_out=parts.held_out,
        )


# Gives the predictions of a finished trial, by its key.
ReadPredictions = Callable[[str], Predictions]
