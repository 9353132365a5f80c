"""The cells that a saved model was trained on, as the file beside it has them, and what was predicted of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata.utils import make_index_unique

from study.cells import (
    CountMatrix,
    Printer,
    Prints,
    Sheet,
    found_in,
    judge,
    open_h5ad,
    reference_values,
    same_values,
)
from study.config import DataConfig
from study.diagnosis.saved import SavedModel
from study.errors import InputError, few

Names = npt.NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class RunCells:
    """Cells of one run, in the order in which the model had them.

    Attributes
    ----------
    path
        The file.
    names
        Of the cells, shape (n_cells,).
    reference
        Which of them are the reference's.
    label
        Their labels; '' where there is none.
    dataset
        What each belongs to: the reference, or a query.
    batch
        Their batches.
    again
        Which of the query's cells have the counts of a reference cell, shape (n_cells,).
    spoilt
        What is wrong with the counts that the model was set up with, by file; empty where they are counts.
    shuffled
        Whether labels that the model kept are not those of these cells in this order: rows then mean other cells.
    """

    path: Path
    names: Names
    reference: npt.NDArray[np.bool_]
    label: Names
    dataset: Names
    batch: Names
    again: npt.NDArray[np.bool_]
    spoilt: dict[Path, str]
    shuffled: bool


def cells_of(model: SavedModel, candidates: Sequence[Path], config: DataConfig | None) -> RunCells:
    """Find and read the cells of a model; of their counts, only what tells whether they are counts.

    Parameters
    ----------
    model
        As it was saved.
    candidates
        Files that the user named; those beside the model are looked at if there are none.
    config
        Which columns tell reference, labels and batches; the model's own columns if None.

    Raises
    ------
    InputError
        If no file has as many cells and the genes, several do, or a column is not there.
    """
    beside = sorted({*model.folder.glob("*.h5ad"), *model.folder.parent.glob("*.h5ad")})
    beside = [one for one in beside if _readable(one)]
    path = _file_of(model, list(candidates) or beside, named=bool(candidates))
    sheet = open_h5ad(path, model.layer)
    others = [one for one in beside if not one.samefile(path) and _fits(one, model) is None]
    spoilt = {one: why for one in (path, *others) if (why := _spoilt(open_h5ad(one, model.layer), model.layer))}
    label_key = config.labels_key if config else model.key("labels")
    batch_key = (config.batch_key if config else None) or model.key("batch")
    label = _text(sheet, label_key, "labels_key") if label_key else np.full(len(sheet.obs), "", dtype=object)
    none = {str(model.unlabelled), "nan", *(config.unlabelled if config else ())}
    label[np.isin(label, list(none))] = ""
    if config is not None:
        dataset = _text(sheet, config.dataset_key, "dataset_key")
        reference = np.isin(dataset, reference_values(config))
    else:
        reference = label != ""
        dataset = np.where(reference, "reference", "query").astype(object)
    if not reference.any():
        if config is None:
            raise InputError(
                f"{path}: which cells are the reference is not known, for {model.folder} has no labelled cell. Say so: "
                "data=forum, data.path, data.dataset_key, data.reference_value and data.labels_key."
            )
        raise InputError(
            f"{path}: no cell is of the reference: obs[{config.dataset_key!r}] has "
            f"{few(sorted(set(dataset.tolist())))}. Say which are, with data.dataset_key=... data.reference_value=..."
        )
    batch = _text(sheet, batch_key, "batch_key") if batch_key else np.full(len(sheet.obs), "", dtype=object)
    # As the script itself made them unique, so that they are those of what it wrote.
    names = np.asarray(make_index_unique(pd.Index(sheet.obs.index.astype(str))), dtype=object)
    prints, again = _prints(sheet, names), np.zeros(len(names), dtype=bool)
    again[~reference] = found_in(prints[~reference], prints[reference]) >= 0
    shuffled = _shuffled(model, np.where(label != "", label, str(model.unlabelled)), reference)
    return RunCells(path, names, reference, np.where(reference, label, ""), dataset, batch, again, spoilt, shuffled)


def _shuffled(model: SavedModel, label: Names, reference: npt.NDArray[np.bool_]) -> bool:
    """Whether the labels of the reference that a model kept differ from these; a model that kept none cannot tell."""
    if model.called is None or len(model.called) != len(label):
        return False
    known = np.isin(model.called, model.labels) & (model.called != str(model.unlabelled))
    both = known & reference & np.isin(label, model.labels)
    return bool(
        (known != (reference & (label != str(model.unlabelled)))).any() or (model.called[both] != label[both]).any()
    )


def _readable(path: Path) -> bool:
    """Whether a file that nobody named is an h5ad at all."""
    try:
        open_h5ad(path, None, matrix=False)
    except InputError:
        return False
    return True


def _file_of(model: SavedModel, candidates: Sequence[Path], named: bool) -> Path:
    why = {path: _fits(path, model) for path in candidates}
    fitting = [path for path, reason in why.items() if reason is None]
    near = [
        path for path in fitting if path.resolve().parent in (model.folder.resolve(), model.folder.resolve().parent)
    ]
    if len(near or fitting) == 1:
        return (near or fitting)[0]
    wanted = f"{model.n_cells:,} cells and its {len(model.genes):,} genes"
    if not fitting:
        looked = "; ".join(f"{path} {reason}" for path, reason in why.items()) or f"{model.folder.parent} has no h5ad"
        raise InputError(
            f"{model.folder}: the cells that it was trained on are not found. Expected an h5ad with {wanted}: "
            f"{looked}. Name it, as in data.path=..."
        )
    # Copies of one object, written before and after training: the first that has the model's own columns.
    if not named:
        wanted_keys = {key for key in (model.key("labels"), model.key("batch")) if key}
        whole = [path for path in fitting if wanted_keys <= set(open_h5ad(path, None, matrix=False).obs.columns)]
        return min(whole or fitting, key=lambda path: path.stat().st_mtime)
    raise InputError(f"{model.folder}: {few(list(map(str, fitting)))} each have {wanted}. Name one of them only.")


def _fits(path: Path, model: SavedModel) -> str | None:
    """Why a file cannot have the cells of a model; None if it can."""
    sheet = open_h5ad(path, None, matrix=False)
    if len(sheet.obs) != model.n_cells:
        return f"has {len(sheet.obs):,} cells"
    missing = len(set(model.genes) - set(sheet.genes.astype(str)))
    return f"lacks {missing:,} of the genes" if missing else None


def _text(sheet: Sheet, key: str, option: str) -> Names:
    column = sheet.column(key, option)
    return np.asarray(column.astype(object).where(column.notna(), "").astype(str), dtype=object)


def _spoilt(sheet: Sheet, layer: str | None) -> str | None:
    """What is wrong with the counts of a file; None if nothing is, or if it does not have them."""
    if sheet.matrix is None:
        return None
    counts = CountMatrix(sheet.matrix)
    return judge(counts, lambda: same_values(counts, sheet, layer)).problem


def _prints(sheet: Sheet, names: Names) -> Prints:
    """Take the fingerprints of all cells; of values that are no counts too, to three decimals."""
    matrix = sheet.matrix if sheet.matrix is not None else sheet.others["null"]()
    printer = Printer(matrix.shape[1])
    for part in CountMatrix(matrix):
        part.data = np.rint(part.data * 1000)
        printer.see(part)
    return printer.prints(names)


@dataclass(frozen=True)
class Predictions:
    """What lies beside a model of predictions.

    Attributes
    ----------
    soft
        Probability of each class, shape (n_cells, n_classes); None where no table fits, or several do.
    source
        Which file they are from.
    why
        Why there are none.
    """

    soft: pd.DataFrame | None
    source: str = ""
    why: str = ""


def predictions_of(model: SavedModel, cells: RunCells) -> Predictions:
    """Return the table of class probabilities that lies beside a model, for its cells.

    Any CSV in the folder of the model or above that has the model's classes as columns and all of the cells by name, as
    `model.predict(soft=True).to_csv(...)` writes it.
    """
    classes = [name for name in model.labels if name != model.unlabelled]
    found: dict[Path, pd.DataFrame] = {}
    why: list[str] = []
    for path in sorted({*model.folder.glob("*.csv"), *model.folder.parent.glob("*.csv")}):
        try:
            first, *columns = pd.read_csv(path, nrows=0).columns.astype(str)
            if not classes or not set(classes) <= set(columns):
                continue  # another table, which nobody asked about
            table = pd.read_csv(path, dtype={first: str}).set_index(first)
            found[path] = _checked(table, classes, cells)
        except (ValueError, OSError, UnicodeError) as error:
            why.append(f"{path.name}: {str(error).splitlines()[0]}")
    if len(found) == 1:
        ((path, table),) = found.items()
        return Predictions(table, str(path))
    if found:
        why.insert(0, f"{few([path.name for path in found])} all fit")
    return Predictions(None, why="; ".join(why) or f"no CSV of predictions in {model.folder} or above")


def _checked(table: pd.DataFrame, classes: Sequence[str], cells: RunCells) -> pd.DataFrame:
    """Return the probabilities of the cells, in their order; raise `ValueError` where they are none."""
    if not table.index.is_unique:
        raise ValueError("has names of cells that come twice")
    missing = len(set(cells.names) - set(table.index))
    if missing:
        raise ValueError(f"lacks {missing:,} of the {len(cells.names):,} cells by name")
    soft: pd.DataFrame = table.reindex(index=cells.names, columns=list(classes)).apply(pd.to_numeric)
    values = soft.to_numpy(dtype=float)
    if not (np.isfinite(values).all() and (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=0.01)):
        raise ValueError("holds values that are no probabilities: expected numbers that add up to 1 in each row")
    return soft
