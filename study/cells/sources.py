"""The sources of a study, each read into a sheet: h5ad files, the bundled cells, simulated cells."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from study.cells.counted import with_counts
from study.cells.findings import Findings
from study.cells.h5ad import open_h5ad
from study.cells.kept import kept_datasets
from study.cells.names import as_text, spelled
from study.cells.sheet import Sheet
from study.cells.simulation import simulate
from study.cells.unreadable import check_file
from study.config import DataConfig, QuerySpec
from study.errors import InputError, nearest
from study.files import sha256_of
from study.imports import uncollected

BUILT_IN = ("self", "none")  # queries that every study has


def query_names(config: DataConfig, directory: Path | None = None) -> tuple[str, ...]:
    """Return the queries that a study of this data can name: its own in order, then `self` and `none`.

    See `own_queries`.
    """
    return own_queries(config, directory) + BUILT_IN


def own_queries(config: DataConfig, directory: Path | None = None) -> tuple[str, ...]:
    """Return the queries that the data has, in order: as configured, or one for each dataset.

    Parameters
    ----------
    config
        The data.
    directory
        Folder of prepared cells, if they will do where files are no longer there.

    Raises
    ------
    InputError
        If the datasets of an h5ad cannot be read, or a query has the name of a built-in one.
    """
    kept = kept_datasets(directory, config) if directory and absent_files(config) else ()
    names = tuple(config.queries) or kept or datasets(config)
    for name in names:
        if name in (*BUILT_IN, "reference"):
            raise InputError(
                f"data: a query is named {name!r}, which has a meaning of its own here. "
                f"Name it otherwise, as in 'data.queries={{other: {{of: {name}}}}}'."
            )
    return names


def datasets(config: DataConfig) -> tuple[str, ...]:
    """Return the values of the dataset column that are not the reference, in order."""
    if config.source == "separate":
        return tuple(config.query_paths)
    if config.source == "simulated":
        assert config.simulate is not None
        return tuple(config.simulate.queries)
    if isinstance(config.path, dict):
        return tuple(config.path)
    paths = [] if config.source == "pbmc68k" else source_files(config).values()
    sheets = [open_h5ad(path, None, matrix=False) for path in paths] or [pbmc68k()]
    values = {value for sheet in sheets for value in spelled(_dataset(sheet, config), config)}
    return tuple(sorted(values - {"", *reference_values(config)}))


def absent_files(config: DataConfig) -> list[Path]:
    """Return the files of a study that are not, or no longer, where they should be."""
    # `Path.exists` raises where a folder may not be searched.
    return [path for path in source_files(config).values() if not os.path.exists(path)]  # noqa: PTH110


def _dataset(sheet: Sheet, config: DataConfig) -> np.ndarray:
    return as_text(sheet.column(config.dataset_key, "dataset_key"))


def plain_queries(config: DataConfig) -> dict[str, tuple[str, ...]]:
    """Return which datasets each query is made of that is no altered twin; all in one where every query is."""
    every = datasets(config)
    found = {}
    for name in own_queries(config):
        spec = config.queries.get(name) or QuerySpec.model_validate({"of": name})
        if not spec.altered:
            found[name] = every if spec.of is None else (spec.of,) if isinstance(spec.of, str) else spec.of
    return found or {"all": every}


def queries_to_label(config: DataConfig, query: str | None) -> list[str]:
    """Return the queries that are to be labelled: the one that is named, or all that are no altered twins.

    Raises
    ------
    InputError
        If there is none such.
    """
    known = own_queries(config)
    if query is not None:
        if query not in known:
            raise InputError(f"query: {query!r} is no query.{nearest(query, known)} Known: {', '.join(known)}.")
        return [query]
    twins = {name for name, spec in config.queries.items() if spec.altered}
    names = [name for name in known if name not in twins]
    if not names:
        raise InputError(f"query: every query is an altered twin. Name one, as in 'query={known[0]}'.")
    return names


def reference_values(config: DataConfig) -> tuple[str, ...]:
    """Return the values of the dataset column that mark reference cells."""
    value = config.reference_value
    return (value,) if isinstance(value, str) else value


def read_sheets(config: DataConfig, findings: Findings) -> list[Sheet]:
    """Read every source, the reference first, with canonical counts; what is wrong is added to the findings.

    Returns
    -------
    All sheets; none if one of them cannot be used at all.
    """
    sheets = [with_counts(opened, config, findings) for opened in _opened(config, findings)]
    usable = [sheet for sheet in sheets if sheet is not None]
    return usable if len(usable) == _number_of(config) else []


def _number_of(config: DataConfig) -> int:
    if config.source == "separate":
        return 1 + len(config.query_paths)
    return len(config.files) if config.source == "combined" else 1


def content_of(config: DataConfig) -> dict[str, str]:
    """Return what identifies the content of the sources: sha256 of files, versions of what makes cells.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    if config.source == "pbmc68k":
        return {"scanpy": version("scanpy")}
    if config.source == "simulated":
        return {"numpy": version("numpy")}
    hashes, problems = {}, []
    for dataset, path in source_files(config).items():
        try:
            check_file(path)
            hashes[dataset] = sha256_of(path)
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    return hashes


def pbmc68k() -> Sheet:
    """Return the 700 blood cells that come inside scanpy, with their counts and a column `well`."""
    with uncollected():
        import scanpy  # slow to import

    cells = scanpy.datasets.pbmc68k_reduced()
    if "counts" in cells.layers:
        counts, genes = cells.layers["counts"], cells.var_names
    else:  # older scanpy has them only normalised to 10,000, logged and rounded to three decimals
        scaled = sp.csr_matrix(cells.raw.X, dtype=np.float64).expm1()
        scaled = sp.csr_matrix(scaled.multiply(cells.obs["n_counts"].to_numpy(dtype=np.float64)[:, None] / 1e4))
        counts, genes = scaled.rint(), cells.raw.var_names
        assert abs(scaled - counts).max() < 0.1, "the bundled cells are not what they were: their counts are not exact"
    obs = cells.obs.assign(well=[name.rpartition("-")[2] for name in cells.obs_names])
    return Sheet("pbmc68k", obs, genes, counts)


def _opened(config: DataConfig, findings: Findings) -> Iterator[Sheet]:
    if config.source == "pbmc68k":
        yield pbmc68k()
    elif config.source == "simulated":
        assert config.simulate is not None
        cells = simulate(config.simulate, config.seed)
        yield Sheet("simulated", cells.obs, cells.var_names, cells.X)
    else:
        for dataset, path in source_files(config).items():
            try:
                yield _with_dataset(open_h5ad(path, config.layer), dataset, config)
            except InputError as error:
                findings.problems.append(str(error))


def _with_dataset(sheet: Sheet, dataset: str, config: DataConfig) -> Sheet:
    """Say of which dataset cells are where the configuration does: of a whole file, or of all but its reference."""
    if config.source == "separate":
        return replace(sheet, obs=sheet.obs.assign(**{config.dataset_key: dataset}))
    if not isinstance(config.path, dict):
        return sheet
    values = spelled(_dataset(sheet, config), config)
    said = np.isin(values, ["", *reference_values(config)])
    return replace(sheet, obs=sheet.obs.assign(**{config.dataset_key: np.where(said, values, dataset)}))


def source_files(config: DataConfig) -> dict[str, Path]:
    """Return the h5ad files of a study, the reference first, by what names their cells; none where cells are made here.

    One file for all is called '', several joint ones are numbered, if they have no names.
    """
    if config.source == "combined":
        return {"": config.path} if isinstance(config.path, Path) else config.files
    if config.source != "separate":
        return {}
    assert config.reference is not None
    reference = reference_values(config)[0]
    if reference in config.query_paths:
        raise InputError(f"data.query_paths: a query is called {reference!r}, as the reference is. Name it otherwise.")
    return {reference: config.reference, **config.query_paths}
