"""Is this data fit to study? All that is wrong or odd about it in one pass, and what it looks like."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from study.cells.alignment import Source, read_source
from study.cells.chunks import Rows
from study.cells.names import odd_labels
from study.cells.points import Points, points_of
from study.cells.sources import BUILT_IN, own_queries
from study.cells.twins import Twin, make_queries, spec_of
from study.config import DataConfig, QuerySpec
from study.errors import InputError, few, nearest

UNKNOWN = "(unknown)"  # no label
APART = 20  # times: between the medians of counts of a cell in a query and in the reference
BY_CHANCE = 0.05  # probability above which all cells of a class may well be in one batch


@dataclass(frozen=True)
class DataReport:
    """What `check` found.

    Attributes
    ----------
    problems
        What forbids a study; each names what, where, what is expected and a remedy.
    warnings
        What a study can live with, but its reader should know.
    cells
        One row for the reference and each query: numbers of cells, classes and batches, genes with counts both there
        and in the reference, and depth.
    classes
        One row for each label: cells of it in the reference and in each query, and their shares.
    batches
        One row for each batch: cells of it in the reference and in each query.
    files
        One row for each source: its genes, and those that the reference has too.
    points
        Some cells of the reference and of each query as points; empty unless they were asked for.
    labels
        Labels of these cells, '' where one is unknown.
    """

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    cells: pd.DataFrame
    classes: pd.DataFrame
    batches: pd.DataFrame
    files: pd.DataFrame
    points: Mapping[str, Points] = field(default_factory=dict)
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def labelled(self) -> list[str]:
        """Which of the reference and the queries have labels, if only of some cells."""
        known = self.classes[self.classes["class"] != UNKNOWN]
        return [name for name in self.cells["name"] if known[f"{name} cells"].any()]

    @property
    def makeup(self) -> pd.DataFrame:
        """The rows of `classes` that have cells in what is labelled."""
        return self.classes[self.classes[[f"{name} cells" for name in self.labelled]].any(axis=1)]

    def tables(self) -> list[tuple[str, pd.DataFrame]]:
        """Return the tables that are not empty, as they are read, each with its title."""
        if self.cells.empty:  # nothing could be read
            return []
        named = [
            ("Cells, with counts and genes of one: median (25% to 75%)", _depth_in_words(self.cells)),
            ("Classes (cells and their share)", self._shares_in_words()),
            ("Batches (cells)", self.batches),
            ("Genes of the sources", self.files),
        ]
        return [(title, table) for title, table in named if len(table)]

    def _shares_in_words(self) -> pd.DataFrame:
        """Return the classes with one column for each part that is labelled: cells and their share."""
        makeup = self.makeup
        read = makeup[["class"]].copy()
        for name in self.labelled:
            both = zip(makeup[f"{name} cells"], makeup[f"{name} share"], strict=True)
            read[f"{name} cells"] = [f"{size:,} ({share:.1%})" if size else "–" for size, share in both]
        return read

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values; `fit` says whether a study can run."""
        tables = {name: getattr(self, name) for name in ("cells", "classes", "batches", "files")}
        return {
            "fit": not self.problems,
            "problems": list(self.problems),
            "warnings": list(self.warnings),
            **{name: json.loads(table.to_json(orient="records")) for name, table in tables.items()},
        }


def check_data(data: DataConfig, names: Sequence[str] = (), folds: int = 2, points: int = 0) -> DataReport:
    """Check the data of a study.

    Parameters
    ----------
    data
        Where the cells come from.
    names
        The queries to look at; all but `self` and `none` if empty.
    folds
        Number of parts of the reference that are held out in turn; a class with fewer cells is warned of.
    points
        How many cells to return as points at most, if nothing forbids a study.
    """
    try:
        own = own_queries(data)
        source, findings = read_source(data)
    except InputError as error:
        return _report([str(error)], [], None, {})
    problems, warnings = findings.problems, findings.warnings
    known = (*own, *BUILT_IN)
    wanted = list(names or own)
    for name in [name for name in wanted if name not in known]:
        problems.append(f"query={name}: no such query.{nearest(name, known)} There are: {few(known)}.")
        wanted.remove(name)
    if source is None:
        return _report(problems, warnings, None, {})
    queries = make_queries(source, data, wanted, findings)
    rows = source.reference
    reference = _Part(Rows(source.counts, rows), source.label[rows], source.batch[rows])
    parts = {"reference": reference}
    warnings += _about_reference(reference, data, folds)
    for name, twin in queries.items():
        parts[name] = _Part(twin.counts, source.label[twin.rows], source.batch[twin.rows])
        warnings += _about_query(name, spec_of(data, name), twin, parts[name], reference)
    found = _report(problems, warnings, source, parts)
    if not points or problems:
        return found
    drawn = points_of({name: part.counts for name, part in parts.items()}, points)
    return replace(found, points=drawn, labels={name: parts[name].labels[one.rows] for name, one in drawn.items()})


def _report(problems: list[str], warnings: list[str], source: Source | None, parts: dict[str, _Part]) -> DataReport:
    """Put findings and the tables of what could be read together."""
    if source is None:
        tables = (pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), pd.DataFrame())
    else:
        files = pd.DataFrame(source.files, columns=["source", "genes", "shared with reference"])
        files["share of reference"] = (files["shared with reference"] / files["genes"].iloc[0]).round(3)
        tables = (
            pd.DataFrame([part.row(name, parts["reference"]) for name, part in parts.items()]),
            _counted("class", {name: part.labels for name, part in parts.items()}, shares=True),
            _counted("batch", {name: part.batch for name, part in parts.items()}, shares=False),
            files,
        )
    return DataReport(tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(warnings)), *tables)


@dataclass(frozen=True)
class _Part:
    """The reference or one query, as the tables need it."""

    counts: Rows
    labels: np.ndarray
    batch: np.ndarray

    @cached_property
    def seen(self) -> tuple[np.ndarray, np.ndarray]:
        """Return which genes have counts, and the counts of each cell, read in one pass."""
        detected, totals = np.zeros(self.counts.matrix.shape[1], dtype=bool), np.zeros(0, dtype=np.float32)
        for part in self.counts:
            detected[part.indices] = True
            totals = np.append(totals, np.asarray(part.sum(axis=1)))
        return detected, totals

    def row(self, name: str, reference: _Part) -> dict[str, Any]:
        """Return the row of the table of cells."""
        detected, totals = self.seen
        row: dict[str, Any] = {"name": name, "cells": len(totals), "genes": len(detected)}
        row["genes without counts"] = int((~detected).sum())
        row["genes shared"] = int((detected & reference.seen[0]).sum())
        row["classes"] = len(set(self.labels) - {""})
        row["batches"] = len(set(self.batch))
        for what, values in (("counts", totals), ("genes", self.counts.sizes)):
            for share in (25, 50, 75):
                row[f"{what} {share}%"] = float(np.percentile(values, share)) if len(values) else None
        return row


def _counted(what: str, parts: dict[str, np.ndarray], shares: bool) -> pd.DataFrame:
    """Count values in the reference and each query, side by side."""
    sizes = pd.DataFrame({name: pd.Series(values, dtype=object).value_counts() for name, values in parts.items()})
    sizes = sizes.fillna(0).astype(int).sort_index()
    table = pd.DataFrame({what: sizes.index.to_series().replace("", UNKNOWN).to_numpy()})
    for name in parts:
        table[f"{name} cells"] = sizes[name].to_numpy()
        if shares:
            table[f"{name} share"] = (sizes[name] / max(1, sizes[name].sum())).round(3).to_numpy()
    return table


def _depth_in_words(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the table of cells with the three percentiles of counts, and of genes, in one column each."""
    read = cells.copy()
    for what in ("counts", "genes"):
        low, middle, high = (read.pop(f"{what} {share}%") for share in (25, 50, 75))
        read[f"{what} of a cell"] = [
            "–" if pd.isna(b) else f"{b:,.0f} ({a:,.0f} to {c:,.0f})" for a, b, c in zip(low, middle, high, strict=True)
        ]
    return read


def _about_reference(reference: _Part, data: DataConfig, folds: int) -> list[str]:
    """What is odd about the reference, though a study can run."""
    sizes = pd.Series(reference.labels[reference.labels != ""], dtype=object).value_counts()
    warnings = [
        f"class {label!r} has {size} reference cells, fewer than the {folds} folds: it is not held out in each."
        for label, size in sizes.items()
        if size < folds
    ]
    warnings += odd_labels(reference.labels)
    if alone := _in_one_batch(reference):
        warnings.append(
            f"classes whose reference cells are all in one batch (obs[{data.batch_key!r}], data.batch_key): "
            f"{few(alone)}; what is particular to such a class and what to the batch cannot be told apart."
        )
    return warnings


def _in_one_batch(part: _Part) -> list[str]:
    """Classes that are in one batch only, and not just because they have few cells or nearly all are in that batch."""
    known = part.labels != ""
    sizes = pd.crosstab(part.labels[known], part.batch[known])
    shares = sizes.sum() / sizes.to_numpy().sum()
    return [
        str(label)
        for label, row in sizes.iterrows()
        if (row > 0).sum() == 1 and shares[row.idxmax()] ** row.sum() < BY_CHANCE
    ]


def _about_query(name: str, spec: QuerySpec, twin: Twin, query: _Part, reference: _Part) -> list[str]:
    """What is odd about a query, though a study can run; what a twin is altered in is as it was meant."""
    warnings = []
    classes, found = set(reference.labels) - {""}, set(query.labels) - {""}
    missing = sorted(classes - found)
    if found and len(missing) > len(classes) / 2 and not (spec.compose or spec.drop):
        warnings.append(
            f"query {name!r}: has no cell of {len(missing):,} of the {len(classes):,} classes of the reference "
            f"({few(missing)}); what is measured on it says nothing of these."
        )
    medians = [float(np.median(part.seen[1])) for part in (query, reference) if len(part.labels)]
    if len(medians) == 2 and max(medians) > APART * min(medians) and spec.thin is None:
        warnings.append(
            f"query {name!r}: its cells have {medians[0]:,.0f} counts, those of the reference {medians[1]:,.0f} "
            f"(medians), more than {APART} times apart; is it the same kind of measurement, and the right layer?"
        )
    if new := found - classes:
        count = int(np.isin(query.labels, list(new)).sum())
        warnings.append(
            f"query {name!r}: {count:,} cells have labels that the reference lacks ({few(sorted(new))}); "
            "whatever scANVI calls them is wrong."
        )
    if twin.emptied:
        warnings.append(f"query {name!r}: thinning leaves {twin.emptied:,} cells without any count: left out.")
    return warnings
