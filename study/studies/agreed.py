"""The labels that the trainings of a study give together, as a table for each query: nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from study import files
from study.cells import Cells, Places, Sheet, absent_files, open_sheets, own_queries, places_of, queries_to_label
from study.config import StudyConfig
from study.errors import InputError, few
from study.studies.labelled import Added, files_to_label, write_labelled
from study.studies.predicted import in_obs
from study.studies.study import Study, open_study, strata_of
from study.trials import Result, read_all
from study.trust import UNKNOWN, Labels, enough_trials, labels_of


def agreed_labels(study: Study, results: Mapping[str, Result], query: str, unknown: float = UNKNOWN) -> Labels:
    """Return what all finished trainings of a study say of a query together.

    Parameters
    ----------
    study
        As opened.
    results
        Finished trials by key.
    query
        One of those that the study trains with.
    unknown
        Share of the reference cells that may be taken for something new.

    Raises
    ------
    InputError
        If fewer than two replicates have all cells of the query.
    """
    if query not in study.cells:
        raise InputError(f"query: {query!r} is no query that is trained with. There are: {', '.join(study.cells)}.")
    cells = study.cells[query]
    return labels_of(query, study.plan, strata_of(study), results, cells, study.config.directory, unknown)


def trusted(study: Study, results: Mapping[str, Result]) -> dict[str, Labels]:
    """Return `agreed_labels` of each query that two replicates or more have all cells of."""
    return {
        query: agreed_labels(study, results, query)
        for query, cells in study.cells.items()
        if cells.n_query and enough_trials(query, study.plan, results, cells)
    }


def labels_beside(
    config: StudyConfig, names: Sequence[str], unknown: float | None, say: Callable[[str], None]
) -> dict[str, pd.DataFrame]:
    """Return what the trainings of a study say of its queries together, for a training that goes beyond the study.

    Parameters
    ----------
    config
        The study, or settings of a study of this name.
    names
        Queries that are asked for.
    unknown
        Share of the reference cells that may be taken for something new; `UNKNOWN` if nobody asked for one.
    say
        Called with a sentence where a query has no such labels.

    Raises
    ------
    InputError
        If a share is asked for, and there are no such labels.
    """
    if not (config.directory / "trials").is_dir():
        if unknown is not None:
            raise InputError(
                f"--unknown {unknown}: no study was run in {config.directory}. It is about the labels that a study's "
                "trainings agree on. Run it first, with the same overrides, or leave --unknown out."
            )
        return {}  # there is nothing that anybody would miss
    found: dict[str, pd.DataFrame] = {}
    try:
        study = open_study(config)
    except InputError as error:
        _say_without(unknown, say, "", error)
        return found
    results = read_all(config.directory, study.plan.all_by_key)
    for name in names:
        try:
            labels = _asked(study, results, name, unknown)
        except InputError as error:
            _say_without(unknown, say, f"{name}: ", error)
            continue
        say(f"{name}: {labels.sentence}")
        found[name] = labels.cells
    return found


def _say_without(unknown: float | None, say: Callable[[str], None], which: str, error: InputError) -> None:
    """Say that there are no labels that trainings agree on, and why; who asked for a share asked for them."""
    if unknown is not None:
        raise error
    say(f"{which}without the labels that a study's trainings agree on: {error}")


def label_all(
    config: StudyConfig,
    say: Callable[[str], None],
    wrote: Callable[[Path], None] | None = None,
    into: Sequence[Path] = (),
    unknown: float | None = None,
) -> Iterator[Path]:
    """Write `consensus.csv` for `config.query`, or for each query that is no altered twin: one row per cell of it.

    Parameters
    ----------
    config
        The study, which must have been run.
    say
        Called with sentences about each query.
    wrote
        Called with each folder that is made for cells.
    into
        Files, of those that the cells come from, to copy with these columns.
    unknown
        Share of the reference cells that may be taken for something new; `UNKNOWN` if None.

    Yields
    ------
    Each file.

    Raises
    ------
    InputError
        If a query is unknown, no query has two replicates with all its cells (or the one that is asked for has not), or
        a file of `into` cannot be used; then nothing is written.
    """
    study = open_study(config, wrote)
    results = read_all(config.directory, study.plan.all_by_key)
    names = queries_to_label(config.data, config.query)
    labels = _all_labels(study, results, names, unknown, say)
    names = list(labels)
    sheets, called = open_sheets(config.data), files.file_names(own_queries(config.data))
    folders = {name: config.directory / "transfer" / called[name] for name in names}
    places = {name: _places_of_query(config, sheets, study.cells[name]) for name in names}
    copies = files_to_label(into, sheets, places, folders)
    for name, found in labels.items():
        table = placed(found, places[name])
        path = folders[name] / "consensus.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, table.to_csv(index=False).encode())
        say(f"{name}: {found.sentence}")
        yield path
    added = {name: Added(places[name], in_obs(found.cells), {}) for name, found in labels.items()}
    for copy in copies:
        write_labelled(copy, added, called, say)
        yield copy.path


def _all_labels(
    study: Study, results: Mapping[str, Result], names: Sequence[str], unknown: float | None, say: Callable[[str], None]
) -> dict[str, Labels]:
    """The labels of all queries that have some; one that was asked for by name must."""
    labels = {}
    for name in names:
        try:
            labels[name] = _asked(study, results, name, unknown)
        except InputError as error:
            if study.config.query is not None or len(names) == 1:
                raise
            say(f"{name}: left out. {error}")
    if not labels:
        raise InputError(
            f"no query has labels that trainings agree on: {few(names)}. Run the study with more replicates."
        )
    return labels


def _asked(study: Study, results: Mapping[str, Result], query: str, unknown: float | None) -> Labels:
    """Return `agreed_labels` with the share that was asked for, which the held-out cells must be able to tell."""
    labels = agreed_labels(study, results, query, UNKNOWN if unknown is None else unknown)
    known = len(labels.held_out)
    if unknown is not None and unknown * (known + 1) < 1:
        raise InputError(
            f"--unknown {unknown}: {known:,} held-out cells tell of no share below 1/{known + 1}. Ask for more."
        )
    return labels


def in_files(study: Study, query: str, labels: Labels) -> pd.DataFrame:
    """Return the labels of a query by the names that its cells have in their files, in the order of these.

    Where the data are gone, by the names and in the order that the study keeps.
    """
    if absent_files(study.config.data):
        return labels.cells
    found = placed(labels, _places_of_query(study.config, open_sheets(study.config.data), study.cells[query]))
    return found.set_index("cell")


def placed(labels: Labels, places: Places) -> pd.DataFrame:
    """Return the labels of a query with the place of each cell, in the order of its files."""
    return pd.concat([places.table, labels.cells.reset_index(drop=True)], axis=1).iloc[places.order]


def _places_of_query(config: StudyConfig, sheets: Sequence[Sheet], cells: Cells) -> Places:
    return places_of(config.data, sheets, cells).take(np.arange(cells.n_reference, len(cells.names)))
