"""From files to checked cells: which are reference and query, on which genes, with which labels and batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from study.cells.findings import Findings
from study.cells.genes import shared_genes
from study.cells.joining import join
from study.cells.names import MISSING, as_text, numbers_in_files, put_together, spelled, twice_spelled, without_labels
from study.cells.prepared import UNLABELLED, Annotation
from study.cells.roles import datasets_in_two_files, one_role, repeated, unequal_references
from study.cells.sheet import Sheet
from study.cells.sources import read_sheets, reference_values
from study.config import DataConfig
from study.errors import InputError, few, nearest
from study.seeds import generator


@dataclass(frozen=True)
class Source:
    """All cells on the genes that reference and queries share.

    `label`, `dataset` and `batch` have one text per cell ('' where a label is unknown). `reference` are row numbers in
    file order; `query` are row numbers in one random order, in which a cell's place depends only on the seed and on
    its own dataset: adding a query moves no cell of another. Cells without any count are in neither: scVI would train
    on them, but they say nothing. `files` has, for each source, its name, its genes, and those the reference has too.
    """

    counts: sp.csr_matrix
    genes: np.ndarray
    names: np.ndarray
    dataset: np.ndarray
    batch: np.ndarray
    label: np.ndarray
    reference: np.ndarray
    query: np.ndarray
    files: tuple[tuple[str, int, int], ...]


def read_source(config: DataConfig) -> tuple[Source | None, Findings]:
    """Read the sources, check them and align their genes.

    Returns
    -------
    The cells, and what was found; no cells where a problem forbids to go on.
    """
    findings = Findings()
    sheets = read_sheets(config, findings)
    if not sheets:
        return None, findings
    dataset, is_reference, label, batch = _annotated(config, sheets, findings)
    shared = shared_genes(sheets, config, findings.problems, findings.warnings)
    if findings.problems:
        return None, findings
    again = repeated(sheets, is_reference, config)
    counts, genes, prints = join(config, sheets, shared, is_reference, again, findings)
    if config.source == "combined" and len(sheets) > 1:
        texts = {"labels": label, "batches": batch}
        findings.problems.extend(unequal_references(sheets, is_reference, prints, texts))
    if findings.problems:
        return None, findings
    prints = prints[~again]
    dataset, label, batch, is_reference = (of_all[~again] for of_all in (dataset, label, batch, is_reference))
    filled = np.diff(counts.indptr) > 0
    for rows, what in ((is_reference, "reference"), (~is_reference, "query")):
        if empty := int((rows & ~filled).sum()):
            findings.warnings.append(f"{empty:,} {what} cells have no count in the {len(genes):,} genes: left out.")
    reference, query = np.flatnonzero(is_reference & filled), np.flatnonzero(~is_reference & filled)
    if len(set(label[reference]) - {""}) < 2:
        findings.problems.append("fewer than 2 classes of the reference have cells with any count. Use more genes.")
        return None, findings
    query = one_role(config, prints, reference, query, (dataset, label), findings)
    source = Source(
        counts=counts,
        genes=genes,
        names=_cell_names(prints.names, dataset),
        dataset=dataset,
        batch=batch,
        label=label,
        reference=reference,
        query=query[np.argsort(_places(dataset, config.seed)[query], kind="stable")],
        files=tuple((sheet.where, len(sheet.genes), int(sheet.genes.isin(sheets[0].genes).sum())) for sheet in sheets),
    )
    return source, findings


def _annotated(
    config: DataConfig, sheets: list[Sheet], findings: Findings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Dataset of all rows, which are reference cells, their labels and batches."""
    dataset = _texts(sheets, config, "dataset_key", findings)
    is_reference = np.isin(dataset, reference_values(config))
    _check_datasets(config, dataset, is_reference, findings)
    if isinstance(config.path, tuple):
        findings.problems.extend(datasets_in_two_files(sheets, dataset, is_reference))
    label = _labels(config, sheets, is_reference, findings)
    batch = np.full(len(dataset), "all", dtype=object)
    if config.batch_key is not None:
        batch = _texts(sheets, config, "batch_key", findings)
        _check_batches(config, batch, is_reference, findings)
    return dataset, is_reference, label, batch


def _texts(sheets: list[Sheet], config: DataConfig, option: str, findings: Findings) -> np.ndarray:
    """One column of all sheets as text; a problem where it is missing, has gaps, or spells a name in two ways."""
    key, parts = getattr(config, option), []
    for sheet in sheets:
        try:
            part = as_text(sheet.column(key, option))
        except InputError as error:
            findings.problems.append(str(error))
            part = np.full(len(sheet.obs), "", dtype=object)
        else:
            if gaps := int((part == "").sum()):
                findings.problems.append(
                    f"{sheet.where}: obs[{key!r}] (data.{option}) is missing or empty for {gaps:,} of {len(part):,} "
                    "cells. Fill it, or remove these cells."
                )
        parts.append(part)
    texts = np.concatenate(parts)
    if config.source == "separate" and key == config.dataset_key:  # the configuration made them
        return texts
    texts = spelled(texts, config)
    what = "datasets" if key == config.dataset_key else "batches"
    findings.problems.extend(twice_spelled(texts, f"obs[{key!r}] (data.{option})", what))
    return texts


def _check_datasets(config: DataConfig, dataset: np.ndarray, is_reference: np.ndarray, findings: Findings) -> None:
    found = sorted(set(dataset) - {""})
    for value in reference_values(config):
        if value not in found:
            findings.problems.append(
                f"data.reference_value: no cell has {value!r} in obs[{config.dataset_key!r}].{nearest(value, found)} "
                f"Its values: {few(found)}."
            )
    if is_reference.sum() == 1:
        findings.problems.append("the reference has 1 cell. Expected at least 2 of each class.")


def _labels(config: DataConfig, sheets: list[Sheet], is_reference: np.ndarray, findings: Findings) -> np.ndarray:
    """Labels of reference cells and, where known, of query cells; '' elsewhere."""
    parts, absent, without = [], [], []
    starts = np.cumsum([len(sheet.obs) for sheet in sheets])[:-1]
    for sheet, here in zip(sheets, np.split(is_reference, starts), strict=True):
        part = np.full(len(here), "", dtype=object)
        if here.any():
            try:
                part[here] = as_text(sheet.column(config.labels_key, "labels_key"))[here]
            except InputError as error:
                absent.append(str(error))
        if not here.all() and config.truth_key is not None:
            try:
                part[~here] = as_text(sheet.column(config.truth_key, "truth_key"))[~here]
            except InputError as error:
                without.append(str(error))
        parts.append(part)
    # One query of several may lack true labels, but a column that none has is a mistake.
    some_known = len(without) < sum(not here.all() for here in np.split(is_reference, starts))
    (findings.warnings if some_known else findings.problems).extend(without)
    label = np.concatenate(parts)
    findings.problems.extend(absent)
    if not absent:
        label = spelled(label, config, first=label[is_reference])
        label = put_together(label, config, findings.problems)
        gaps = int((label[is_reference] == "").sum())
        label = without_labels(label, config, findings.problems)
        findings.problems.extend(twice_spelled(label, "labels (data.labels_key, data.truth_key)", "classes"))
        read = zip((sheet.where for sheet in sheets), np.split(label, starts), strict=True)
        findings.problems.extend(numbers_in_files(list(read)))
    if not absent and is_reference.any():
        _check_labels(config, label[is_reference], gaps, findings)
    label[~is_reference & (label == UNLABELLED)] = ""
    return label


def _check_labels(config: DataConfig, labels: np.ndarray, gaps: int, findings: Findings) -> None:
    where = f"labels of the reference (obs[{config.labels_key!r}])"
    if gaps and MISSING not in config.unlabelled:
        findings.problems.append(
            f"{where}: missing or empty for {gaps:,} of {len(labels):,} cells. Remove these cells, or take them as "
            f"unlabelled ones with 'data.unlabelled=[{MISSING}]'."
        )
    sizes = pd.Series(labels[labels != ""], dtype=object).value_counts()
    if UNLABELLED in sizes.index:
        findings.problems.append(
            f"{where}: {sizes[UNLABELLED]:,} cells are called {UNLABELLED!r}, which scANVI keeps for cells without a "
            f"label. Say 'data.unlabelled=[{UNLABELLED}]' if they have none, or rename the label."
        )
    if len(sizes) == 1:
        findings.problems.append(f"{where}: all cells are {sizes.index[0]!r}. Expected at least 2 classes.")


def _check_batches(config: DataConfig, batch: np.ndarray, is_reference: np.ndarray, findings: Findings) -> None:
    shared = sorted(set(batch[is_reference]) & set(batch[~is_reference]) - {""})
    if not shared:
        return
    found = f"obs[{config.batch_key!r}] (data.batch_key): {few(shared)} occur in the reference and in queries"
    if config.source == "separate":
        # Two files that both say 'batch1' hardly mean one batch, and as one its effect could not be corrected.
        findings.problems.append(
            f"{found}, in different files, so scVI would take different batches for one. "
            f"Rename them, or make each file a batch with data.batch_key={config.dataset_key}."
        )
    else:
        findings.warnings.append(f"{found}: scVI corrects no difference between the two there.")


def _places(dataset: np.ndarray, seed: int) -> np.ndarray:
    """A random number for each cell, from a generator of its dataset."""
    places = np.empty(len(dataset))
    for value in set(dataset):
        rows = np.flatnonzero(dataset == value)
        places[rows] = generator(seed, f"order of {value}").random(len(rows))
    return places


def _cell_names(names: np.ndarray, dataset: np.ndarray) -> np.ndarray:
    """Unique names; those of one file are unique, and where files share some, the dataset comes before all."""
    return names if pd.Index(names).is_unique else np.char.add(np.char.add(dataset.astype(str), ":"), names)


def annotation(source: Source, rows: np.ndarray, copies: np.ndarray | None = None) -> Annotation:
    """Return what is known of the reference and some rows of a source.

    Parameters
    ----------
    source
        All cells.
    rows
        Rows of the source that are the query cells, in order, shape (n_query,).
    copies
        Number of each copy, if the query cells are copies of reference cells, shape (n_query,).
    """
    every = np.concatenate([source.reference, rows])
    label, truth = source.label[source.reference], source.label[rows]
    classes = tuple(sorted(set(label) - {""}))
    truth_classes = classes + tuple(sorted(set(truth) - {"", *classes}))
    batches = tuple(sorted(set(source.batch[every])))
    names = source.names[every]
    origin = np.full(len(rows), -1, dtype=np.int64)
    if copies is not None:
        suffix = np.char.add(":self", copies.astype(str))
        names = np.concatenate([source.names[source.reference], np.char.add(source.names[rows], suffix)])
        origin = np.searchsorted(source.reference, rows).astype(np.int64)
    return Annotation(
        genes=source.genes,
        classes=classes,
        labels=_codes(label, classes),
        truth=_codes(truth, truth_classes),
        truth_classes=truth_classes,
        batches=batches,
        batch=_codes(source.batch[every], batches),
        names=names,
        origin=origin,
    )


def _codes(texts: np.ndarray, words: tuple[str, ...]) -> np.ndarray:
    """Codes of texts into words; -1 for others."""
    return pd.Index(words, dtype=object).get_indexer(pd.Index(texts, dtype=object)).astype(np.int32)
