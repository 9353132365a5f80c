"""What trials called the cells: the predictions of one as a table of cells, and the confusion of some as one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from study.data import Cells
from study.results import Predictions, Result


def predictions(result: Result, found: Predictions, cells: Cells) -> pd.DataFrame:
    """Return what a trial called every cell.

    Parameters
    ----------
    result
        The trial.
    found
        Its predictions.
    cells
        Its condition.

    Returns
    -------
    One row per cell, by name: `part` (heldout, train, query; ``left out`` for a reference cell that would have been
    a minibatch of its own), `batch`, `label` (the true one; missing where it is unknown), `predicted` and `confidence`
    (its probability).
    """
    n = cells.n_reference
    part = np.repeat(["train", "query"], [n, cells.n_query]).astype(object)
    part[[row for row in result.left_out if row < n]] = "left out"
    part[found.held_out] = "heldout"
    classes = np.array(cells.classes, dtype=object)
    truth = np.array([*cells.truth_classes, None], dtype=object)  # the last for codes of -1
    called = np.concatenate([found.probabilities.argmax(axis=1), found.query_label])
    return pd.DataFrame(
        {
            "part": part,
            "batch": np.array(cells.batches, dtype=object)[cells.batch],
            "label": np.concatenate([classes[cells.labels], truth[cells.truth]]),
            "predicted": classes[called],
            "confidence": np.concatenate([found.probabilities.max(axis=1), found.query_confidence]),
        },
        index=pd.Index(cells.names.astype(str), name="cell"),
    )


def confusion(found: Iterable[Result], part: str) -> pd.DataFrame:
    """Return cells by true (rows) and called class (columns), summed over trials.

    Parameters
    ----------
    found
        At least one trial.
    part
        ``heldout``, ``train`` or ``query``; then the rows go on with labels that the reference lacks.
    """
    tables = [
        pd.DataFrame(one.confusion[part], one.truth_classes if part == "query" else one.classes, one.classes)
        for one in found
    ]
    return pd.concat(tables).groupby(level=0, sort=False).sum()
