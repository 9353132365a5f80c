"""A user's own file, copied, with what was predicted of its cells: all that it holds stays as it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem, write_elem

from study import files
from study.cells import Places, Sheet, check_file
from study.errors import InputError, few
from study.studies.predicted import free_names, say_renamed


@dataclass(frozen=True)
class LabelledFile:
    """A user's file that is to be copied.

    Attributes
    ----------
    source
        The file.
    path
        The copy.
    sheets
        Numbers of the sheets that were read from it.
    queries
        Queries that have cells in it.
    """

    source: Path
    path: Path
    sheets: tuple[int, ...]
    queries: tuple[str, ...]


@dataclass(frozen=True)
class Added:
    """What a copy gets of some cells.

    Attributes
    ----------
    places
        Where they are in their files.
    obs
        One row per cell, by the names of the columns.
    obsm
        Latent spaces by name, each of shape (n_cells, n_latent).
    """

    places: Places
    obs: pd.DataFrame
    obsm: Mapping[str, np.ndarray]

    def take(self, cells: np.ndarray) -> Added:
        """Return what is added of some of these cells."""
        obsm = {name: values[cells] for name, values in self.obsm.items()}
        return Added(self.places.take(cells), self.obs.iloc[cells], obsm)


def files_to_label(
    into: Sequence[Path], sheets: Sequence[Sheet], queries: Mapping[str, Places], folders: Mapping[str, Path]
) -> list[LabelledFile]:
    """Return what is to be copied, before anything is trained.

    Parameters
    ----------
    into
        Files of the user.
    sheets
        The sources.
    queries
        Places of the cells of each query that is to be labelled.
    folders
        Folder of each of them. A copy goes there; one with cells of several queries, beside these folders.

    Raises
    ------
    InputError
        If a file is none of the sources, has no cell to label, has one that two queries label, or would be written
        where another one is.
    """
    found: dict[Path, LabelledFile] = {}
    for source in into:
        check_file(source)
        numbers = [at for at, sheet in enumerate(sheets) if sheet.file and sheet.file.path.samefile(source)]
        if not numbers:
            known = [str(sheet.file.path) for sheet in sheets if sheet.file]
            expected = f"Expected one of those that they do: {few(known)}" if known else "They come from no file"
            raise InputError(f"--into {source}: the cells do not come from this file. {expected}.")
        rows = {name: places.row[np.isin(places.sheet, numbers)] for name, places in queries.items()}
        names = tuple(name for name in queries if len(rows[name]))
        if not names:
            raise InputError(
                f"--into {source}: no cell of it is labelled. Expected a file with cells of {few([*rows])}."
            )
        _refuse_labelled_twice(source, {name: rows[name] for name in names})
        folder = folders[names[0]] if len(names) == 1 else folders[names[0]].parent
        path = folder / f"{source.stem}.labelled.h5ad"
        other = found.setdefault(path, LabelledFile(source, path, tuple(numbers), names))
        if not other.source.samefile(source):
            raise InputError(
                f"--into {source}: its copy would be {path}, as that of {other.source}. Rename one of the two files."
            )
    return list(found.values())


def _refuse_labelled_twice(source: Path, rows: Mapping[str, np.ndarray]) -> None:
    every = pd.Index(np.concatenate(list(rows.values())))
    if every.has_duplicates:
        row = every[every.duplicated()][0]
        names = [name for name, mine in rows.items() if row in mine]
        raise InputError(
            f"--into {source}: some of its cells are in several queries ({few(names)}), each with its own labels. "
            f"Name the one that is wanted, as in 'query={names[0]}'."
        )


def write_labelled(
    file: LabelledFile,
    added: Mapping[str, Added],
    called: Mapping[str, str],
    say: Callable[[str], None],
) -> None:
    """Copy a file and add columns of `obs` and `obsm`; cells that were not labelled have missing values there.

    Parameters
    ----------
    file
        What to copy, and where to.
    added
        What each query gets.
    called
        What the latent spaces of a query are called by, where several queries are in the file: each has its own.
    say
        Called with a sentence about the copy.
    """
    mine = {name: _in_file(added[name], file) for name in file.queries}
    with files.writing(file.path) as aside:
        shutil.copyfile(file.source, aside)
        with h5py.File(aside, "r+") as copy:
            cells = np.asarray(read_elem(copy["obs"][copy["obs"].attrs["_index"]]), dtype=str)
            if any((cells[one.places.row] != one.places.cell).any() for one in mine.values()):
                raise InputError(
                    f"--into {file.source}: has other cells than when it was read. Give the command again."
                )
            rows = len(cells)
            names = _add(copy, "obs", _obs(mine, rows))
            copy["obs"].attrs["column-order"] = [*copy["obs"].attrs["column-order"], *names.values()]
            spaces = _add(copy, "obsm", _latent(mine, called, rows))
    say_renamed(names, "obs", file.source.name, say)
    say_renamed(spaces, "obsm", file.source.name, say)
    labelled = sum(len(one.places.row) for one in mine.values())
    with_spaces = f" and obsm {few([*spaces.values()])}" if spaces else ""
    say(
        f"{file.path.name} is {file.source} with obs {few([*names.values()])}{with_spaces}; "
        f"{labelled:,} of {rows:,} cells are labelled"
    )


def _in_file(added: Added, file: LabelledFile) -> Added:
    return added.take(np.flatnonzero(np.isin(added.places.sheet, file.sheets)))


def _add(copy: h5py.File, group: str, columns: Mapping[str, Any]) -> dict[str, str]:
    """Add columns to a group of a file; return what they are called there."""
    if group not in copy:
        write_elem(copy, group, {})
    names = free_names(columns, copy[group].keys())
    for name, values in columns.items():
        write_elem(copy[group], names[name], values)
    return names


def _obs(mine: Mapping[str, Added], rows: int) -> dict[str, Any]:
    """Columns of `obs` for all cells of a file: names as categories, numbers as they are."""
    table = pd.concat(one.obs.set_axis(one.places.row) for one in mine.values()).reindex(np.arange(rows))
    numbers = set(table.select_dtypes("number"))
    return {
        str(name): column.to_numpy() if name in numbers else pd.Categorical(column) for name, column in table.items()
    }


def _latent(mine: Mapping[str, Added], called: Mapping[str, str], rows: int) -> dict[str, np.ndarray]:
    """Latent spaces for all cells of a file: one of each kind for each query, because they have nothing in common."""
    found = {}
    for name, one in mine.items():
        for kind, values in one.obsm.items():
            every = np.full((rows, values.shape[1]), np.nan, dtype=values.dtype)
            every[one.places.row] = values
            found[kind if len(mine) == 1 else f"{kind}_{called[name]}"] = every
    return found
