"""No cell in two roles: a reference that several files repeat is taken once, and no query cell is a reference cell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from study.cells.findings import Findings
from study.cells.fingerprint import Prints, example_of, found_in
from study.cells.sheet import Sheet
from study.config import DataConfig
from study.errors import few


def repeated(sheets: Sequence[Sheet], is_reference: np.ndarray, config: DataConfig) -> np.ndarray:
    """Return which rows of the sheets hold the reference once more, shape (n_rows,)."""
    if config.source != "combined":
        return np.zeros(len(is_reference), dtype=bool)
    first = np.arange(len(is_reference)) < len(sheets[0].obs)
    return is_reference & ~first


def unequal_references(
    sheets: Sequence[Sheet], is_reference: np.ndarray, label: np.ndarray, prints: Prints
) -> list[str]:
    """Return what differs between the references of files that should all hold the same one.

    Parameters
    ----------
    sheets
        The files.
    is_reference, label
        Of all their rows, shape (n_rows,).
    prints
        Fingerprints of all their rows.
    """
    starts = np.cumsum([0, *(len(sheet.obs) for sheet in sheets)])
    parts = [start + np.flatnonzero(is_reference[start:end]) for start, end in pairwise(starts)]
    first, problems = parts[0], []
    for sheet, rows in zip(sheets[1:], parts[1:], strict=True):
        names, here = prints.names[first], prints.names[rows]
        missing, extra = np.setdiff1d(names, here), np.setdiff1d(here, names)
        of = f"{sheet.where}: its reference is not that of {sheets[0].where}"
        same = "Each file must hold the same reference cells; make the files again from one reference."
        if len(missing) or len(extra):
            example = (missing if len(missing) else extra)[0]
            problems.append(
                f"{of}: {len(missing):,} cells are missing and {len(extra):,} are not in that one (such as "
                f"{str(example)!r}). {same}"
            )
            continue
        twin = first[np.argsort(names, kind="stable")][np.argsort(np.argsort(here, kind="stable"), kind="stable")]
        for what, differs in (
            ("counts", prints.values[rows] != prints.values[twin]),
            ("label", label[rows] != label[twin]),
        ):
            if differs.any():
                example = str(prints.names[rows[int(differs.argmax())]])
                problems.append(f"{of}: {int(differs.sum()):,} cells have other {what}s (such as {example!r}). {same}")
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
    """Return the query cells that are no reference cells, in order.

    Parameters
    ----------
    config
        Whether query cells that the reference has too are left out; if not, they are a problem.
    prints
        Fingerprints of all cells.
    reference, query
        Their rows.
    texts
        Dataset and label of all cells.
    findings
        Takes what is wrong, and warnings of queries that share cells and of reference cells that are there twice.
    """
    mine, (dataset, label) = prints[reference], texts
    seen: dict[str, Prints] = {}
    both = np.zeros(len(query), dtype=bool)
    for name in sorted(set(dataset[query])):
        here = dataset[query] == name
        cells = prints[query[here]]
        where = found_in(cells, mine)
        both[here] = where >= 0
        if (where >= 0).any() and not config.drop_duplicates:
            findings.problems.append(
                f"query {name!r}: {int((where >= 0).sum()):,} of its {len(where):,} cells are reference cells too "
                f"(same counts; {example_of(cells, mine, where)}). A cell is either. Leave them out of the query with "
                "data.drop_duplicates=true, or remove them from the file."
            )
        for other, others in seen.items():
            shared = found_in(cells, others)
            if (shared >= 0).any():
                findings.warnings.append(
                    f"queries {other!r} and {name!r} share {int((shared >= 0).sum()):,} cells (same counts; "
                    f"{example_of(cells, others, shared)})."
                )
        seen[name] = cells
    findings.warnings.extend(_twice(mine, label[reference]))
    if config.drop_duplicates and both.any():
        findings.warnings.append(f"{int(both.sum()):,} query cells that are reference cells too are left out.")
        return query[~both]
    return query


def _twice(cells: Prints, label: np.ndarray) -> list[str]:
    """Warn of reference cells that are there more than once: one may be held out while the other is trained on."""
    where = found_in(cells, cells)
    again = where != np.arange(len(where))
    if not again.any():
        return []
    shown = np.where(again, where, -1)
    unlike = int((label[again] != label[where[again]]).sum())
    labels = f" {unlike:,} of them have another label there." if unlike else ""
    return [
        f"{int(again.sum()):,} reference cells are in the reference more than once (same counts; "
        f"{example_of(cells, cells, shown)}): one may be held out while its like is trained on.{labels}"
    ]
