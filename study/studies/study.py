"""A study as designed: its cells and its plan, before anything is trained."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from study.cells import Cells, prepare, query_names
from study.config import StudyConfig
from study.errors import InputError
from study.plan import Plan, Stratum, controls_of, plan_study, strata, trials_of
from study.studies.search import Search, begin_search, most_of_search


@dataclass(frozen=True)
class Study:
    """A study as designed: its cells and its plan; of a search, as far as its results tell."""

    config: StudyConfig
    queries: tuple[str, ...]
    cells: Mapping[str, Cells]
    plan: Plan
    search: Search | None = None


def open_study(config: StudyConfig) -> Study:
    """Prepare the cells of a study and plan it.

    Raises
    ------
    InputError
        If the data or the design cannot be used.
    """
    if config.scvi.extra or config.scanvi.extra:
        # Imported here, because scvi-tools takes seconds and most plans need nothing of it.
        from study.training import check_extra

        check_extra(config)
    queries = query_names(config.data)
    every = (*trials_of(config, queries), *controls_of(config, queries))
    used = list(dict.fromkeys(trial.query for trial in every))
    with nothing_left_if_refused(config):
        cells = prepare(config.data, used, config.directory / "counts")
        if config.space.design == "search":
            begun = begin_search(config, cells, queries)
            return Study(config, queries, cells, begun.plan, begun)
        return Study(config, queries, cells, plan_study(config, cells, queries))


def most_of(study: Study) -> Study:
    """Return a study with all that it can come to train: of a search, candidates are made up for that."""
    if study.search is None:
        return study
    return replace(study, plan=most_of_search(study.config, study.queries, study.search.conditions))


@contextmanager
def nothing_left_if_refused(config: StudyConfig) -> Iterator[None]:
    """Remove the cells that were prepared inside, if what is done with them is refused before anything is trained."""
    counts = config.directory / "counts"
    folders = (counts, counts.parent, counts.parent.parent)
    there = {path for path in folders if path.exists()} | set(counts.glob("*"))
    try:
        yield
    except InputError:
        trained = any((config.directory / "trials").glob("*"))
        for folder in () if trained else set(counts.glob("*")) - there:
            shutil.rmtree(folder)
        for folder in folders:
            if folder not in there and folder.exists() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def strata_of(study: Study) -> tuple[Stratum, ...]:
    """Return the levels of the tree that chance comes from."""
    return strata(study.plan.factors, study.config.scanvi.protocol)
