"""One final label transfer with a configuration: the forum thread's whole pipeline, done right.

Trains on all labelled cells, so there is no held-out number here: what to expect is what the study measured.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import umap
import yaml

from study import files
from study.cells import (
    Cells,
    Places,
    Sheet,
    open_sheets,
    own_queries,
    places_of,
    prepare,
    queries_to_label,
    query_names,
)
from study.config import QuerySpec, Settings, StudyConfig, dump
from study.plan import Split, trials_of
from study.studies.agreed import labels_beside
from study.studies.confusion import write_confusion
from study.studies.labelled import Added, files_to_label, write_labelled
from study.studies.predicted import Predicted, predicted_of, write_predicted
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


@dataclass(frozen=True)
class Sources:
    """Where cells come from, in their order, and what is known of them already.

    Attributes
    ----------
    sheets
        The files as they were read.
    places
        Where the cells are in them.
    agreed
        What the trainings of a study say of the query's cells together; None where there is no such study.
    """

    sheets: Sequence[Sheet]
    places: Places
    agreed: pd.DataFrame | None = None


def transfer_all(
    config: StudyConfig,
    say: Callable[[str], None],
    wrote: Callable[[Path], None] | None = None,
    into: Sequence[Path] = (),
    unknown: float | None = None,
) -> Iterator[Path]:
    """Transfer labels to `config.query`, or to each query that is no altered twin: to all cells of it.

    Parameters
    ----------
    config
        Settings to use. `query_cells` is of a study's conditions.
    say
        Called with a sentence at each step.
    wrote
        Called with each folder that is made for cells.
    into
        Files, of those that the cells come from, to copy with what was predicted.
    unknown
        Share of the reference cells that may be taken for something new, by the trainings of the study.

    Yields
    ------
    The folder of each query, and each copy once all queries in it are done.

    Raises
    ------
    InputError
        If the query is unknown, or the data or a file of `into` cannot be used.
    """
    names = queries_to_label(config.data, config.query)
    matched = config.budget == "steps" and config.scanvi.protocol == "joint"
    queries = query_names(config.data) if matched else ()
    designed = [trial.query for trial in trials_of(config, queries)] if matched else []
    cells = prepare(config.data, list(dict.fromkeys([*names, *designed])), config.directory / "counts", wrote)
    largest = largest_condition(config, queries, cells) if matched else None
    # All that may be refused comes before anything is trained.
    sheets = open_sheets(config.data)
    places = {name: places_of(config.data, sheets, cells[name]) for name in names}
    called = files.file_names(own_queries(config.data))
    folders = {name: config.directory / "transfer" / called[name] for name in names}
    of_queries = {
        name: found.take(np.arange(cells[name].n_reference, len(found.cell))) for name, found in places.items()
    }
    copies = files_to_label(into, sheets, of_queries, folders)
    if config.query_cells != "all":
        say(f"All cells of a query are labelled; query_cells={config.query_cells} is of the study's conditions.")
    agreed = labels_beside(config, names, unknown, say)
    done: dict[str, Added] = {}
    for name in names:
        epochs = _epochs(config, cells[name].counts.shape[0], largest)
        sources = Sources(sheets, places[name], agreed.get(name))
        found = transfer_query(config, name, cells[name], sources, epochs, folders[name], say)
        done[name] = Added(found.places, found.columns, found.embeddings)
        yield folders[name]
        for one in copies:
            if name in one.queries and done.keys() >= set(one.queries):
                write_labelled(one, done, called, say)
                yield one.path


def transfer_query(
    config: StudyConfig,
    name: str,
    cells: Cells,
    sources: Sources,
    epochs: tuple[int, int],
    folder: Path,
    say: Callable[[str], None],
) -> Predicted:
    """Train both models on a reference and one query, predict all cells, and write what a person needs.

    Parameters
    ----------
    config
        Settings to use.
    name
        Name of the query.
    cells
        Reference and query.
    sources
        Where they come from.
    epochs
        Of scVI and of scANVI.
    folder
        Gets `scvi_model/` and `scanvi_model/`; of the query `predictions.csv` (`cell`, `dataset`, `row`, class
        probabilities, `max_value`, `max_column`, and what a study's trainings agree on) and `transfer.h5ad` (the cells
        as their files have them, with predictions, `X_scVI`, `X_scANVI`, `X_umap`), of the reference likewise
        `reference.csv` and `reference.h5ad`; the confusion matrices of the reference, recall and precision, as CSV and
        PNG; and `config.yaml`. With surgery, `scvi_model/` is of the reference alone, so that there is no `X_scVI` of
        all cells, and `scanvi_model/` is the one that the query is mapped onto.
    say
        Called with a sentence at each step.

    Returns
    -------
    What is said of the query.
    """
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
    query = _write(folder, config.data.queries.get(name), cells, sources, found, tell)
    # Last: a folder with it is whole, and these are the settings of its models.
    made = config.model_copy(update={"query": name})
    files.write(folder / "config.yaml", yaml.safe_dump(dump(made), sort_keys=False, allow_unicode=True).encode())
    return query


def _write(
    folder: Path, spec: QuerySpec | None, cells: Cells, sources: Sources, found: Transferred, say: Callable[[str], None]
) -> Predicted:
    """Write what is said of reference and query; return the latter."""
    reference, query = predicted_of(cells, sources.places, found.probabilities, found.embeddings, sources.agreed)
    write_predicted(folder / "reference.csv", folder / "reference.h5ad", sources.sheets, reference, say)
    write_predicted(folder / "predictions.csv", folder / "transfer.h5ad", sources.sheets, query, say)
    if spec is not None and (spec.thin or spec.match_depth):
        say("transfer.h5ad has the counts of the file; those that were labelled are thinned")
    write_confusion(folder, cells, found.probabilities)
    return query


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
        _save(snapshot, cells, folder / "scvi_model")

    def read_scanvi(snapshot: Snapshot) -> None:
        kept["X_scANVI"] = snapshot.model.get_latent_representation()
        kept["probabilities"] = predict_probabilities(snapshot.model, cells)
        states.append(state_of(snapshot.model))
        _save(snapshot, cells, folder / "scanvi_model")

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
    parts = Split(rows, rows[:0], rows[:0], cells.n_reference, cells.unlabelled)
    found: list[Transferred] = []

    def read(snapshot: Snapshot) -> None:
        # It knows the query alone, and must be told of the reference.
        every = joint_anndata(cells, parts)
        probabilities = predict_probabilities(snapshot.model, cells, every)
        probabilities[: cells.n_reference] = reference.probabilities
        found.append(Transferred(probabilities, {"X_scANVI": snapshot.model.get_latent_representation(every)}))
        _save(snapshot, cells, folder / "scanvi_model")

    level = settings.scanvi.surgery_epochs
    say(f"mapping the query, {level} epochs on {cells.n_query:,} cells")
    operate(cells, parts, settings, 0, [level], read, on, state)
    return found[0]


def _save(snapshot: Snapshot, cells: Cells, folder: Path) -> None:
    """Save a model with the names of its genes, which training has no use for: who loads it may have others too."""
    snapshot.model.adata.var_names = cells.genes.astype(str)
    snapshot.model.save(str(folder), overwrite=True)


def _all_cells(cells: Cells, batch_size: int) -> Split:
    """All cells are trained on, but for one that would be a minibatch of its own."""
    rows = np.arange(cells.counts.shape[0])
    cut = rows.size - (rows.size % batch_size == 1)
    return Split(rows[:cut], rows[:0], rows[cut:], cells.n_reference, cells.unlabelled)
