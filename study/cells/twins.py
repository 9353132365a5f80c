"""From a query to its altered twins: other depth, other make-up, drawn from the reference, or none at all."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from study.cells.alignment import Source, annotation, read_source
from study.cells.chunks import Rows, spool
from study.cells.findings import Findings
from study.cells.kept import FACTS, kept_folder, origin_of
from study.cells.prepared import SCHEMA, Cells, load_cells, save_cells
from study.cells.sources import absent_files, content_of, query_names
from study.config import DataConfig, QuerySpec, dump
from study.errors import InputError, few, nearest
from study.files import explained
from study.seeds import generator

log = logging.getLogger(__name__)

# What says nothing about the content of cells: names and paths. Queries count one by one.
NO_CONTENT = {"name", "path", "reference", "query_paths", "queries"}


def prepare(
    config: DataConfig, names: Sequence[str], directory: Path, wrote: Callable[[Path], None] | None = None
) -> dict[str, Cells]:
    """Return each named query with the reference, from `directory` where it was prepared before.

    Parameters
    ----------
    config
        Where the cells come from.
    names
        Queries, of those that `query_names` gives.
    directory
        Folder of prepared cells. Each query has a folder there that is named after the content of the sources and
        whatever else decides about its cells. Where a file is no longer there, those last made of it will do.
    wrote
        Called with each folder that is made here, the outer one first; one that another process makes is not told of.

    Raises
    ------
    InputError
        With all problems of the sources, or if a query cannot be made of them.
    """
    known = query_names(config, directory)
    for name in names:
        if name not in known:
            raise InputError(f"query={name}: no such query.{nearest(name, known)} There are: {', '.join(known)}.")
    folders = _kept_folders(config, names, directory) or _folders(config, names, directory)
    for folder in folders.values():
        with suppress(OSError):  # it is not there yet, or another's: to mark it as in use is a courtesy
            os.utime(folder / FACTS)
    cells = {name: load_cells(folder) for name, folder in folders.items()}
    missing = [name for name in names if cells[name] is None]
    if missing:
        source, findings = read_source(config)
        findings.refuse()
        assert source is not None
        for warning in findings.warnings:
            log.warning("%s", warning)
        # All are made before the first is written, so that a mistake in one leaves nothing behind.
        made = make_queries(source, config, missing, findings)
        findings.refuse()
        for name, twin in made.items():
            counts = [Rows(source.counts, source.reference), twin.counts]
            _make(folders[name], wrote)
            origin = origin_of(config, sorted(set(source.dataset[source.query])), _made_of(config, name))
            save_cells(annotation(source, twin.rows, twin.copies), counts, folders[name], origin)
            cells[name] = load_cells(folders[name])
    return {name: found for name, found in cells.items() if found is not None}


def _make(folder: Path, wrote: Callable[[Path], None] | None) -> None:
    """Make a folder and those above it, and tell of each that is new."""
    for one in (*reversed(folder.parents), folder):
        if not one.exists():
            with explained(one), suppress(FileExistsError):
                one.mkdir()
                if wrote:
                    wrote(one)


@dataclass(frozen=True)
class Twin:
    """The cells of one query.

    `rows` are rows of the source, in order, shape (n_query,); `counts` are the counts of these cells, which may differ
    from the source's; `copies` number the copies of reference cells (twin `self`), shape (n_query,), else None;
    `emptied` is the number of cells left out because thinning left them no count.
    """

    rows: np.ndarray
    counts: Rows
    copies: np.ndarray | None = None
    emptied: int = 0


def make_queries(source: Source, config: DataConfig, names: Sequence[str], findings: Findings) -> dict[str, Twin]:
    """Make each query that can be made; the others are problems."""
    made = {}
    for name in names:
        try:
            made[name] = make_query(source, config, name)
        except InputError as error:
            findings.problems.append(str(error))
    return made


def spec_of(config: DataConfig, name: str) -> QuerySpec:
    """Return what a query is made of: as configured, or all cells of the dataset of that name."""
    return config.queries.get(name) or QuerySpec.model_validate({"of": name})


def make_query(source: Source, config: DataConfig, name: str) -> Twin:
    """Make the cells of one query.

    Parameters
    ----------
    source
        All cells.
    config
        What queries are made of, and the seed of what is random about them.
    name
        One of `query_names(config)`.

    Raises
    ------
    InputError
        If the source lacks the datasets or labels that the query is made of, or leaves fewer than 2 cells.
    """
    if name == "none":
        return Twin(source.query[:0], Rows(source.counts, source.query[:0]))
    if name == "self":
        return _from_reference(source, config)
    wanted = spec_of(config, name)
    rows = select_rows(source, wanted, name, config.seed)
    keep = _depth_kept(source, config, rows) if wanted.match_depth else wanted.thin
    if wanted.match_size:
        # Before thinning: cells that it leaves without any count may make matched queries differ by these.
        rows = rows[: min(map(len, _selected(source, config, "match_size")))]
    counts = Rows(source.counts, rows)
    if keep is not None and keep < 1:
        random = generator(config.seed, "thin")
        thinned = (thin(part, keep, random) for part in counts)
        counts = Rows.all(spool(thinned, len(source.genes), int(counts.sizes.sum())))
    filled = np.flatnonzero(counts.sizes)
    _check_enough(name, len(filled), "cells with any count left after thinning")
    return Twin(rows[filled], replace(counts, rows=counts.rows[filled]), emptied=len(rows) - len(filled))


def _selected(source: Source, config: DataConfig, flag: str) -> list[np.ndarray]:
    """Rows of each query that is matched in this way, before matching."""
    matched = {name: wanted for name, wanted in config.queries.items() if getattr(wanted, flag)}
    return [select_rows(source, wanted, name, config.seed) for name, wanted in matched.items()]


def _depth_kept(source: Source, config: DataConfig, rows: np.ndarray) -> float:
    """Probability to keep a count with, so that these cells become as shallow as the shallowest matched query."""
    totals = np.asarray(source.counts.sum(axis=1)).ravel()
    shallowest = min(float(totals[other].mean()) for other in _selected(source, config, "match_depth"))
    return shallowest / float(totals[rows].mean())


def select_rows(source: Source, wanted: QuerySpec, name: str, seed: int) -> np.ndarray:
    """Return the rows of the query cells that a query is made of, in the source's random order."""
    rows: np.ndarray = source.query
    if wanted.of is not None:
        values = (wanted.of,) if isinstance(wanted.of, str) else wanted.of
        found = sorted(set(source.dataset[rows]))
        for value in values:
            if value not in found:
                raise InputError(
                    f"query {name!r}: no query cell is of dataset {value!r}.{nearest(value, found)} "
                    f"There are: {few(found)}."
                )
        rows = rows[np.isin(source.dataset[rows], values)]
    if wanted.drop is not None:
        _check_known(source, rows, wanted.drop, name)
        rows = rows[~np.isin(source.label[rows], wanted.drop)]
    if wanted.compose is not None:
        shares = {label: share for label, share in wanted.compose.items() if share > 0}
        _check_known(source, rows, list(shares), name)
        rows = _composed(source, rows, shares, generator(seed, "compose"))
    _check_enough(name, len(rows), "cells")
    return rows


def thin(counts: sp.csr_matrix, keep: float, random: np.random.Generator) -> sp.csr_matrix:
    """Keep each count with a probability: as if the same cells had been sequenced less deeply.

    Parameters
    ----------
    counts
        Raw counts, shape (n_cells, n_genes).
    keep
        The probability.
    random
        Source of random numbers.
    """
    thinned = counts.copy()
    thinned.data = random.binomial(counts.data.astype(np.int64), keep).astype(counts.dtype)
    thinned.eliminate_zeros()
    return thinned


def _composed(source: Source, rows: np.ndarray, shares: dict[str, float], random: np.random.Generator) -> np.ndarray:
    """As many rows as there are in these proportions, drawn without replacement and kept in order."""
    members = {label: np.flatnonzero(source.label[rows] == label) for label in shares}
    size = min(len(members[label]) / share for label, share in shares.items())
    # Drawn, not the first ones of each label: every prefix then has about these shares.
    chosen = [random.choice(members[label], round(size * share), replace=False) for label, share in shares.items()]
    composed: np.ndarray = rows[np.sort(np.concatenate(chosen))]
    return composed


def _check_enough(name: str, found: int, what: str) -> None:
    if found < 2:
        raise InputError(
            f"query {name!r}: has {found} {what}. Expected at least 2. "
            f"Change data.queries.{name}, or use the built-in query 'none'."
        )


def _check_known(source: Source, rows: np.ndarray, labels: Sequence[str], name: str) -> None:
    found = sorted(set(source.label[rows]) - {""})
    if not found:
        raise InputError(
            f"query {name!r}: 'compose' and 'drop' need the true labels of its cells, and none is known. "
            "Name their column with data.truth_key=..."
        )
    for label in labels:
        if label not in found:
            raise InputError(
                f"query {name!r}: none of its cells has the label {label!r}.{nearest(label, found)} "
                f"There are: {few(found)}."
            )


def _from_reference(source: Source, config: DataConfig) -> Twin:
    """A pseudo-query of reference cells, as large as the largest query: size without novelty."""
    names = config.queries or sorted(set(source.dataset[source.query]))
    sizes = [len(select_rows(source, spec_of(config, name), name, config.seed)) for name in names]
    size = max(sizes, default=len(source.reference))
    passes = -(-size // len(source.reference))
    order = [generator(config.seed, f"self {i}").permutation(source.reference) for i in range(passes)]
    rows = np.concatenate(order)[:size]
    return Twin(rows, Rows(source.counts, rows), copies=np.arange(size) // len(source.reference) + 1)


def _kept_folders(config: DataConfig, names: Sequence[str], directory: Path) -> dict[str, Path]:
    """Folders of queries whose sources are no longer there; none if some of these must be read."""
    if not (absent := absent_files(config)):
        return {}
    found = {name: kept_folder(directory, config, _made_of(config, name)) for name in names}
    folders = {name: folder for name, folder in found.items() if folder is not None}
    if len(folders) < len(names):
        return {}
    log.warning("%s: not there any more. The cells that were made of it are used.", ", ".join(map(str, absent)))
    return folders


def _folders(config: DataConfig, names: Sequence[str], directory: Path) -> dict[str, Path]:
    """Folders of queries, each named after whatever can change its cells."""
    identity = {
        "schema": SCHEMA,
        "content": content_of(config),
        "config": {key: value for key, value in dump(config).items() if key not in NO_CONTENT},
    }
    texts = {name: json.dumps({**identity, "twin": _made_of(config, name)}, sort_keys=True) for name in names}
    return {name: directory / hashlib.sha256(text.encode()).hexdigest()[:32] for name, text in texts.items()}


def _made_of(config: DataConfig, name: str) -> Any:
    """What decides which cells a query has, beside the sources."""
    if name == "self":  # as large as the largest of the others
        return {"self": {other: dump(wanted) for other, wanted in config.queries.items()}}
    if name == "none":
        return name
    twin = dump(spec_of(config, name))
    if twin["match_size"] or twin["match_depth"]:
        return {"matched": twin, "with": {other: dump(wanted) for other, wanted in config.queries.items()}}
    return twin
