"""No cell in two roles: a reference that several files repeat is taken once, and no query cell is a reference cell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from study.cells.findings import Findings
from study.cells.fingerprint import Prints, example_of, found_in
from study.cells.sheet import Sheet
from study.config import DataConfig
from study.errors import few

PAIRS = 5  # of queries that are warned of one by one


def repeated(sheets: Sequence[Sheet], is_reference: np.ndarray, config: DataConfig) -> np.ndarray:
    """Return which rows of the sheets hold the reference once more, shape (n_rows,)."""
    if config.source != "combined":
        return np.zeros(len(is_reference), dtype=bool)
    first = np.arange(len(is_reference)) < len(sheets[0].obs)
    return is_reference & ~first


def unequal_references(
    sheets: Sequence[Sheet], is_reference: np.ndarray, prints: Prints, texts: dict[str, np.ndarray]
) -> list[str]:
    """Return what differs between the references of files that should all hold the same one.

    Parameters
    ----------
    sheets
        The files.
    is_reference
        Of all their rows, shape (n_rows,).
    prints
        Fingerprints of all their rows.
    texts
        What else must be equal of a cell, by what it is called, each of shape (n_rows,).
    """
    starts = np.cumsum([0, *(len(sheet.obs) for sheet in sheets)])
    parts = [start + np.flatnonzero(is_reference[start:end]) for start, end in pairwise(starts)]
    first, problems = parts[0], []
    index = pd.Index(prints.names[first])
    for sheet, rows in zip(sheets[1:], parts[1:], strict=True):
        of = f"{sheet.where}: its reference is not that of {sheets[0].where}"
        same = "Each file must hold the same reference cells; make the files again from one reference."
        here = pd.Index(prints.names[rows])
        missing, extra = index.difference(here), here.difference(index)
        if len(missing) or len(extra):
            problems.append(
                f"{of}: it lacks {len(missing):,} of the {len(index):,} cells there, and {len(extra):,} of its "
                f"{len(here):,} are not there (such as {[*missing, *extra][0]!r}). {same}"
            )
            continue
        there = first[index.get_indexer(here)]
        for what, values in {"counts": prints.values, **texts}.items():
            differs = values[rows] != values[there]
            if differs.any():
                example = str(here[int(differs.argmax())])
                problems.append(f"{of}: {int(differs.sum()):,} cells have other {what} (such as {example!r}). {same}")
    return problems


def datasets_in_two_files(sheets: Sequence[Sheet], dataset: np.ndarray, is_reference: np.ndarray) -> list[str]:
    """Return which queries are in several files, though files are told apart by their queries."""
    where: dict[str, list[str]] = {}
    starts = np.cumsum([len(sheet.obs) for sheet in sheets])[:-1]
    pairs = zip(sheets, np.split(dataset, starts), np.split(is_reference, starts), strict=True)
    for sheet, values, reference in pairs:
        for value in sorted(set(values[~reference]) - {""}):
            where.setdefault(value, []).append(sheet.where)
    return [
        f"data.path: {few(files)} each have a query called {value!r}. Tell them apart by names, as in "
        f"'data.path={{{value}_1: {files[0]}, {value}_2: {files[1]}}}'."
        for value, files in where.items()
        if len(files) > 1
    ]


def one_role(
    config: DataConfig,
    prints: Prints,
    reference: np.ndarray,
    query: np.ndarray,
    texts: tuple[np.ndarray, np.ndarray],
    findings: Findings,
) -> np.ndarray:
    """Return the query cells that may stay: those that are no reference cells, if `data.drop_duplicates` says so.

    Parameters
    ----------
    config
        Which datasets are used, and whether query cells that the reference has too are left out or a problem.
    prints
        Fingerprints of all cells.
    reference, query
        Their rows.
    texts
        Dataset and label of all cells.
    findings
        Takes what is wrong, and warnings of queries that share cells and of reference cells that are there twice.
    """
    dataset, label = texts
    cells, mine = prints[query], prints[reference]
    codes, names = pd.factorize(dataset[query], sort=True)
    where = found_in(cells, mine)
    used = _used(config, names)
    for code in np.unique(codes[where >= 0]):
        if names[code] in used:
            here = codes == code
            said = (
                f"query {names[code]!r}: {int((where[here] >= 0).sum()):,} of its {int(here.sum()):,} cells are "
                f"reference cells too (same counts; {example_of(cells[here], mine, where[here])})"
            )
            if config.drop_duplicates:
                findings.warnings.append(f"{said}: left out.")
            else:
                findings.problems.append(
                    f"{said}. A cell is either. Leave them out of the query with data.drop_duplicates=true, or remove "
                    "them from the file."
                )
    findings.warnings.extend(_shared(cells, codes, names, used))
    findings.warnings.extend(_twice(mine, label[reference]))
    return query[where < 0] if config.drop_duplicates else query


def _used(config: DataConfig, datasets: np.ndarray) -> set[str]:
    """Which datasets some query of the study is made of."""
    used: set[str] = set()
    for spec in config.queries.values():
        used |= {*datasets} if spec.of is None else {spec.of} if isinstance(spec.of, str) else {*spec.of}
    return used if config.queries else {*datasets}


def _shared(cells: Prints, codes: np.ndarray, names: np.ndarray, used: set[str]) -> list[str]:
    """Warn of datasets that share cells, which may be on purpose."""
    several = np.flatnonzero(pd.Index(cells.values).duplicated(keep=False) & np.isin(names, list(used))[codes])
    table = pd.DataFrame({"value": cells.values[several], "code": codes[several], "name": cells.names[several]})
    once = table.drop_duplicates(["value", "code"])
    pairs = once.merge(once, on="value", suffixes=("", "_there")).query("code < code_there")
    found = [both for _, both in pairs.groupby(["code", "code_there"])]
    warnings = [
        f"queries {names[both['code'].iloc[0]]!r} and {names[both['code_there'].iloc[0]]!r} share {len(both):,} cells "
        f"(same counts; such as {both['name'].iloc[0]!r}, there {both['name_there'].iloc[0]!r})."
        for both in found[:PAIRS]
    ]
    return warnings + ([f"{len(found) - PAIRS:,} more pairs of queries share cells."] if len(found) > PAIRS else [])


def _twice(cells: Prints, label: np.ndarray) -> list[str]:
    """Warn of reference cells that are there more than once: one may be held out while the other is trained on."""
    again = np.flatnonzero(pd.Index(cells.values).duplicated())
    if not len(again):
        return []
    where = found_in(cells[again], cells)
    unlike = int((label[again] != label[where]).sum())
    labels = f" {unlike:,} of them have another label there." if unlike else ""
    return [
        f"{len(again):,} reference cells are in the reference more than once (same counts; "
        f"{example_of(cells[again], cells, where)}): one may be held out while its like is trained on.{labels}"
    ]
