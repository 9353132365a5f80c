"""What a transfer calls the reference's own cells: the confusion of its classes, as tables and pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from study import files
from study.cells import Cells


def write_confusion(folder: Path, cells: Cells, probabilities: npt.NDArray[np.float32]) -> None:
    """Write the confusion of the reference's classes, as recall and as precision.

    Parameters
    ----------
    folder
        Where to write.
    cells
        Reference and query.
    probabilities
        Of each class, shape (n_reference + n_query, n_classes).
    """
    known = cells.labels >= 0
    called = probabilities[: cells.n_reference].argmax(axis=1)
    matrix = confusion_matrix(cells.labels[known], called[known], labels=np.arange(len(cells.classes)))
    for kind, axis in (("recall", 1), ("precision", 0)):
        shares = matrix / np.maximum(matrix.sum(axis=axis, keepdims=True), 1)
        frame = pd.DataFrame(
            shares, index=pd.Index(cells.classes, name="true \\ predicted"), columns=list(cells.classes)
        )
        files.write(folder / f"confusion_{kind}.csv", frame.to_csv().encode())
        files.write(folder / f"confusion_{kind}.png", _drawn(kind, shares, cells.classes))


def _drawn(kind: str, shares: npt.NDArray[np.float64], classes: tuple[str, ...]) -> bytes:
    """Draw a matrix of shares of shape (n_classes, n_classes) as PNG."""
    size = max(4.0, 0.4 * len(classes) + 2)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    names = [name.replace("$", r"\$") for name in classes]  # matplotlib would read a $ as mathematics
    axis.set_xticks(range(len(names)), names, rotation=90)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    sums = "rows sum to 1" if kind == "recall" else "columns sum to 1"
    axis.set_title(f"{kind} on reference cells (all trained on); {sums}")
    for row, column in zip(*np.nonzero(shares > 0.05), strict=True):
        shade = "white" if shares[row, column] > 0.6 else "black"
        axis.text(column, row, f"{shares[row, column]:.2f}", ha="center", va="center", fontsize=7, color=shade)
    figure.colorbar(image, shrink=0.6)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
