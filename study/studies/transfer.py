"""One final label transfer with a configuration: the forum thread's whole pipeline, done right.

Trains on all labelled cells, so there is no held-out number here: what to expect is what the study measured.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import umap
import yaml
from anndata import AnnData
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from study import files
from study.cells import BUILT_IN, UNLABELLED, Cells, prepare, query_names
from study.config import StudyConfig, dump
from study.errors import InputError, nearest
from study.plan import Split
from study.training import Hardware, Snapshot, State, check_extra, finetune, predict_probabilities, pretrain, state_of


def transfer_query(config: StudyConfig, name: str, cells: Cells, directory: Path, say: Callable[[str], None]) -> Path:
    """Train both models on a reference and one query, predict all cells, and write what a person needs.

    Parameters
    ----------
    config
        Settings to use.
    name
        Name of the query.
    cells
        Reference and query; `config.query_cells` is applied.
    directory
        Files go to a folder of it with the name of the query.
    say
        Called with a sentence at each step.

    Returns
    -------
    The folder, with `scvi_model/`, `scanvi_model/`, `predictions.csv` (class probabilities, `max_value`, `max_column`),
    `transfer.h5ad` (counts, labels, predictions, `X_scVI`, `X_scANVI`, `X_umap`), the confusion matrices of the
    reference, recall and precision, as CSV and PNG, and `config.yaml`.
    """
    cells = cells.first(config.query_cells)
    parts = _all_cells(cells, config.scvi.batch_size)
    folder = directory / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").unlink(missing_ok=True)
    kept: dict[str, npt.NDArray[np.float32]] = {}
    states: list[State] = []
    on = Hardware.of(config.resources)

    def read_scvi(snapshot: Snapshot) -> None:
        kept["X_scVI"] = snapshot.model.get_latent_representation()
        states.append(state_of(snapshot.model))
        snapshot.model.save(str(folder / "scvi_model"), overwrite=True)

    def read_scanvi(snapshot: Snapshot) -> None:
        kept["X_scANVI"] = snapshot.model.get_latent_representation()
        kept["probabilities"] = predict_probabilities(snapshot.model, cells)
        snapshot.model.save(str(folder / "scanvi_model"), overwrite=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small batches and few loader workers: both on purpose
        say(f"{name}: training scVI, {config.scvi.max_epochs} epochs on {parts.train.size:,} cells")
        pretrain(cells, parts, config, 0, [config.scvi.max_epochs], read_scvi, on)
        say(f"{name}: training scANVI, {config.scanvi.max_epochs} epochs")
        finetune(cells, parts, config, 0, [config.scanvi.max_epochs], read_scanvi, on, states[0])
        say(f"{name}: embedding and writing")
        kept["X_umap"] = umap.UMAP(random_state=0, n_jobs=1).fit_transform(kept["X_scANVI"])
    _write(folder, cells, kept)
    # Last: a folder with it is whole, and these are the settings of its models.
    files.write(folder / "config.yaml", yaml.safe_dump(dump(config), sort_keys=False, allow_unicode=True).encode())
    return folder


def transfer_all(config: StudyConfig, say: Callable[[str], None]) -> Iterator[Path]:
    """Transfer labels to `config.query`, or to each query that is no altered twin; yield the folders.

    Raises
    ------
    InputError
        If the query is unknown or the data cannot be used.
    """
    if config.scvi.extra or config.scanvi.extra:
        check_extra(config)
    names = _to_label(config)
    cells = prepare(config.data, names, config.directory / "counts")
    for found in cells.values():
        found.first(config.query_cells)  # a query that has too few is refused before another is trained
    for name in names:
        yield transfer_query(config, name, cells[name], config.directory / "transfer", say)


def _to_label(config: StudyConfig) -> list[str]:
    """Return the queries that are to be labelled."""
    known = query_names(config.data)[: -len(BUILT_IN)]
    if config.query is not None:
        if config.query not in known:
            raise InputError(
                f"query: {config.query!r} is no query.{nearest(config.query, known)} Known: {', '.join(known)}."
            )
        return [config.query]
    twins = {name for name, spec in config.data.queries.items() if spec.altered}
    names = [name for name in known if name not in twins]
    if not names:
        raise InputError(f"query: every query is an altered twin. Name one, as in 'query={known[0]}'.")
    return names


def _all_cells(cells: Cells, batch_size: int) -> Split:
    """All cells are trained on, but for one that would be a minibatch of its own."""
    rows = np.arange(cells.counts.shape[0])
    cut = rows.size - (rows.size % batch_size == 1)
    return Split(rows[:cut], rows[:0], rows[cut:], cells.n_reference)


def _write(folder: Path, cells: Cells, kept: dict[str, npt.NDArray[np.float32]]) -> None:
    n = cells.n_reference
    soft = pd.DataFrame(kept["probabilities"], index=pd.Index(cells.names, name="cell"), columns=list(cells.classes))
    best = soft.to_numpy().argmax(axis=1)
    called = np.asarray(cells.classes, dtype=object)[best]
    confidence = soft.to_numpy().max(axis=1)
    table = pd.concat([soft, pd.DataFrame({"max_value": confidence, "max_column": called}, index=soft.index)], axis=1)
    files.write(folder / "predictions.csv", table.to_csv().encode())
    labels = np.concatenate(
        [np.asarray(cells.classes, dtype=object)[cells.labels], np.repeat(UNLABELLED, cells.n_query)]
    )
    obs = pd.DataFrame(
        {
            "dataset": np.where(np.arange(labels.size) < n, "reference", "query"),
            "batch": np.asarray(cells.batches, dtype=object)[cells.batch],
            "label": labels,
            "predicted": called,
            "confidence": confidence,
        },
        index=cells.names.astype(str),
    )
    # Not the shared read-only counts: the file's writer may sort or compress in place.
    adata = AnnData(cells.counts.copy(), obs=obs, var=pd.DataFrame(index=cells.genes.astype(str)))
    for key in ("X_scVI", "X_scANVI", "X_umap"):
        adata.obsm[key] = kept[key]
    with files.writing(folder / "transfer.h5ad") as aside:
        adata.write_h5ad(aside, compression="gzip")
    matrix = confusion_matrix(cells.labels, best[:n], labels=np.arange(len(cells.classes)))
    for kind, axis in (("recall", 1), ("precision", 0)):
        _write_confusion(folder, kind, matrix / np.maximum(matrix.sum(axis=axis, keepdims=True), 1), cells.classes)


def _write_confusion(folder: Path, kind: str, shares: npt.NDArray[np.float64], classes: tuple[str, ...]) -> None:
    frame = pd.DataFrame(shares, index=pd.Index(classes, name="true \\ predicted"), columns=list(classes))
    files.write(folder / f"confusion_{kind}.csv", frame.to_csv().encode())
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
    files.write(folder / f"confusion_{kind}.png", buffer.getvalue())
