"""The labels that the trainings of a study give together, as a table for each query: nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from study import files
from study.cells import open_sheets, own_queries, places_of, queries_to_label
from study.config import StudyConfig
from study.errors import InputError
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


def label_all(
    config: StudyConfig,
    say: Callable[[str], None],
    wrote: Callable[[Path], None] | None = None,
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
    unknown
        Share of the reference cells that may be taken for something new; `UNKNOWN` if None.

    Yields
    ------
    Each file.

    Raises
    ------
    InputError
        If a query is unknown, or fewer than two replicates have all its cells; then nothing is written.
    """
    study = open_study(config, wrote)
    results = read_all(config.directory, study.plan.all_by_key)
    names = queries_to_label(config.data, config.query)
    share = UNKNOWN if unknown is None else unknown
    found = {name: agreed_labels(study, results, name, share) for name in names}
    sheets, called = open_sheets(config.data), files.file_names(own_queries(config.data))
    for name, labels in found.items():
        cells = study.cells[name]
        places = places_of(config.data, sheets, cells).take(np.arange(cells.n_reference, len(cells.names)))
        table = pd.concat([places.table, labels.cells.reset_index(drop=True)], axis=1).iloc[places.order]
        path = config.directory / "transfer" / called[name] / "consensus.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, table.to_csv(index=False).encode())
        say(f"{name}: {_told(labels)}")
        yield path


def _told(labels: Labels) -> str:
    rows = labels.measured.set_index("trust")
    counts = ", ".join(f"{name} {number:,}" for name, number in rows["query cells"].items())
    right = rows["right"].map("{:.1%}".format).to_dict()
    return (
        f"{labels.trainings} trainings of {labels.replicates} replicates. Trust in the labels of {len(labels.cells):,} "
        f"cells: {counts}. Of held-out reference cells, those of high trust are right in {right['high']}, "
        f"those to check in {right['check']}."
    )
