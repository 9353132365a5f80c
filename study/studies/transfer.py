"""One final label transfer with a configuration: the forum thread's whole pipeline, done right.

Trains on all labelled cells, so there is no held-out number here: what to expect is what the study measured.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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
from study.cells import UNLABELLED, Cells, own_queries, prepare, query_names
from study.config import DataConfig, Settings, StudyConfig, dump
from study.errors import InputError, nearest
from study.plan import Split, trials_of
from study.studies.study import largest_condition, steps_of
from study.training import (
    Hardware,
    Snapshot,
    State,
    finetune,
    joint_anndata,
    operate,
    predict_probabilities,
    pretrain,
    state_of,
)

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Transferred:
    """What the models say of cells.

    Attributes
    ----------
    probabilities
        Of each class, shape (n_cells, n_classes).
    embeddings
        Latent spaces by name, each of shape (n_cells, n_latent).
    """

    probabilities: Array
    embeddings: dict[str, Array]


def transfer_all(
    config: StudyConfig, say: Callable[[str], None], wrote: Callable[[Path], None] | None = None
) -> Iterator[Path]:
    """Transfer labels to `config.query`, or to each query that is no altered twin; yield the folders.

    Parameters
    ----------
    config
        Settings to use.
    say
        Called with a sentence at each step.
    wrote
        Called with each folder that is made for cells.

    Raises
    ------
    InputError
        If the query is unknown or the data cannot be used.
    """
    names = _to_label(config.data, config.query)
    matched = config.budget == "steps" and config.scanvi.protocol == "joint"
    queries = query_names(config.data) if matched else ()
    designed = [trial.query for trial in trials_of(config, queries)] if matched else []
    cells = prepare(config.data, list(dict.fromkeys([*names, *designed])), config.directory / "counts", wrote)
    taken = {name: cells[name].first(config.query_cells) for name in names}  # before any is trained: it may be refused
    largest = largest_condition(config, queries, cells) if matched else None
    for name in names:
        epochs = _epochs(config, taken[name].counts.shape[0], largest)
        yield transfer_query(config, name, taken[name], epochs, config.directory / "transfer", say)


def transfer_query(
    config: StudyConfig,
    name: str,
    cells: Cells,
    epochs: tuple[int, int],
    directory: Path,
    say: Callable[[str], None],
) -> Path:
    """Train both models on a reference and one query, predict all cells, and write what a person needs.

    Parameters
    ----------
    config
        Settings to use.
    name
        Name of the query.
    cells
        Reference and query.
    epochs
        Of scVI and of scANVI.
    directory
        Files go to a folder of it with the name of the query.
    say
        Called with a sentence at each step.

    Returns
    -------
    The folder, with `scvi_model/`, `scanvi_model/`, `predictions.csv` (class probabilities, `max_value`, `max_column`),
    `transfer.h5ad` (counts, labels, predictions, `X_scVI`, `X_scANVI`, `X_umap`), the confusion matrices of the
    reference, recall and precision, as CSV and PNG, and `config.yaml`. With surgery, `scvi_model/` is of the reference
    alone, so that there is no `X_scVI` of all cells, and `scanvi_model/` is the one that the query is mapped onto.
    """
    folder = directory / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").unlink(missing_ok=True)
    on, surgery = Hardware.of(config.resources), config.scanvi.protocol == "surgery"

    def tell(text: str) -> None:
        say(f"{name}: {text}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small batches and few loader workers: both on purpose
        found, state = _train(cells.first(0) if surgery else cells, config, epochs, on, folder, tell)
        if surgery:
            found = _map_query(cells, config, on, folder, tell, found, state)
        tell("embedding and writing")
        found.embeddings["X_umap"] = umap.UMAP(random_state=0, n_jobs=1).fit_transform(found.embeddings["X_scANVI"])
    table = _predictions(cells, found.probabilities)
    files.write(folder / "predictions.csv", table.to_csv().encode())
    _write_cells(folder / "transfer.h5ad", cells, table, found.embeddings)
    _write_matrices(folder, cells, found.probabilities)
    # Last: a folder with it is whole, and these are the settings of its models.
    files.write(folder / "config.yaml", yaml.safe_dump(dump(config), sort_keys=False, allow_unicode=True).encode())
    return folder


def _to_label(data: DataConfig, query: str | None) -> list[str]:
    """Return the queries that are to be labelled: the one that is named, or all that are no altered twins."""
    known = own_queries(data)
    if query is not None:
        if query not in known:
            raise InputError(f"query: {query!r} is no query.{nearest(query, known)} Known: {', '.join(known)}.")
        return [query]
    twins = {name for name, spec in data.queries.items() if spec.altered}
    names = [name for name in known if name not in twins]
    if not names:
        raise InputError(f"query: every query is an altered twin. Name one, as in 'query={known[0]}'.")
    return names


def _epochs(settings: Settings, cells: int, largest: int | None) -> tuple[int, int]:
    """Return the epochs of scVI and scANVI: as stated, or as many as match the steps of the largest condition."""
    size = settings.scvi.batch_size
    ratio = 1.0 if largest is None else steps_of(largest, size) / steps_of(cells, size)
    return max(1, round(settings.scvi.max_epochs * ratio)), max(1, round(settings.scanvi.max_epochs * ratio))


def _train(
    cells: Cells, settings: Settings, epochs: tuple[int, int], on: Hardware, folder: Path, say: Callable[[str], None]
) -> tuple[Transferred, State]:
    """Train both models on all cells and save them; return what they say, and scANVI's weights."""
    kept: dict[str, Array] = {}
    states: list[State] = []
    parts = _all_cells(cells, settings.scvi.batch_size)

    def read_scvi(snapshot: Snapshot) -> None:
        kept["X_scVI"] = snapshot.model.get_latent_representation()
        states.append(state_of(snapshot.model))
        snapshot.model.save(str(folder / "scvi_model"), overwrite=True)

    def read_scanvi(snapshot: Snapshot) -> None:
        kept["X_scANVI"] = snapshot.model.get_latent_representation()
        kept["probabilities"] = predict_probabilities(snapshot.model, cells)
        states.append(state_of(snapshot.model))
        snapshot.model.save(str(folder / "scanvi_model"), overwrite=True)

    say(f"training scVI, {epochs[0]} epochs on {parts.train.size:,} cells")
    pretrain(cells, parts, settings, 0, [epochs[0]], read_scvi, on)
    say(f"training scANVI, {epochs[1]} epochs")
    finetune(cells, parts, settings, 0, [epochs[1]], read_scanvi, on, states[0])
    return Transferred(kept.pop("probabilities"), kept), states[1]


def _map_query(
    cells: Cells,
    settings: Settings,
    on: Hardware,
    folder: Path,
    say: Callable[[str], None],
    reference: Transferred,
    state: State,
) -> Transferred:
    """Map a query onto a model of the reference and save it; of the reference, what that model said stays."""
    rows = np.arange(cells.counts.shape[0])
    parts = Split(rows, rows[:0], rows[:0], cells.n_reference)
    found: list[Transferred] = []

    def read(snapshot: Snapshot) -> None:
        # It knows the query alone, and must be told of the reference.
        every = joint_anndata(cells, parts)
        probabilities = predict_probabilities(snapshot.model, cells, every)
        probabilities[: cells.n_reference] = reference.probabilities
        found.append(Transferred(probabilities, {"X_scANVI": snapshot.model.get_latent_representation(every)}))
        snapshot.model.save(str(folder / "scanvi_model"), overwrite=True)

    level = settings.scanvi.surgery_epochs
    say(f"mapping the query, {level} epochs on {cells.n_query:,} cells")
    operate(cells, parts, settings, 0, [level], read, on, state)
    return found[0]


def _all_cells(cells: Cells, batch_size: int) -> Split:
    """All cells are trained on, but for one that would be a minibatch of its own."""
    rows = np.arange(cells.counts.shape[0])
    cut = rows.size - (rows.size % batch_size == 1)
    return Split(rows[:cut], rows[:0], rows[cut:], cells.n_reference)


def _predictions(cells: Cells, probabilities: Array) -> pd.DataFrame:
    """Return what each cell is called, by its name: the probability of each class, the largest, and whose it is."""
    index = pd.Index(cells.names, name="cell")
    soft = pd.DataFrame(probabilities, index=index, columns=list(cells.classes))
    called = np.asarray(cells.classes, dtype=object)[probabilities.argmax(axis=1)]
    best = pd.DataFrame({"max_value": probabilities.max(axis=1), "max_column": called}, index=index)
    return pd.concat([soft, best], axis=1)


def _write_cells(path: Path, cells: Cells, table: pd.DataFrame, embeddings: Mapping[str, Array]) -> None:
    """Write counts, labels, predictions and embeddings as one h5ad."""
    known = np.asarray(cells.classes, dtype=object)[cells.labels]
    obs = pd.DataFrame(
        {
            "dataset": np.repeat(["reference", "query"], [cells.n_reference, cells.n_query]),
            "batch": np.asarray(cells.batches, dtype=object)[cells.batch],
            "label": np.concatenate([known, np.repeat(UNLABELLED, cells.n_query)]),
            "predicted": table["max_column"].to_numpy(),
            "confidence": table["max_value"].to_numpy(),
        },
        index=cells.names.astype(str),
    )
    # Not the shared read-only counts: the file's writer may sort or compress in place.
    adata = AnnData(cells.counts.copy(), obs=obs, var=pd.DataFrame(index=cells.genes.astype(str)))
    adata.obsm.update(embeddings)
    with files.writing(path) as aside:
        adata.write_h5ad(aside, compression="gzip")


def _write_matrices(folder: Path, cells: Cells, probabilities: Array) -> None:
    """Write the confusion of the reference's classes, as recall and as precision."""
    called = probabilities[: cells.n_reference].argmax(axis=1)
    matrix = confusion_matrix(cells.labels, called, labels=np.arange(len(cells.classes)))
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
