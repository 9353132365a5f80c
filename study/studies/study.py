"""A study as designed: its cells and its plan, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from study.cells import Cells, class_names, prepare, query_names
from study.config import StudyConfig
from study.errors import InputError, few, nearest
from study.plan import Conditions, Plan, Stratum, controls_of, plan_study, refuse_without_truth, strata, trials_of
from study.studies.growth import at_epochs, growth_of

if TYPE_CHECKING:  # slow to import, and only searches need it
    from study.studies.search import Recall, Search


@dataclass(frozen=True)
class Study:
    """A study as designed: its cells and its plan; of a search, as far as its results tell."""

    config: StudyConfig
    queries: tuple[str, ...]
    cells: Mapping[str, Cells]
    plan: Plan
    search: Search | None = None


def open_study(config: StudyConfig, wrote: Callable[[Path], None] | None = None) -> Study:
    """Prepare the cells of a study and plan it.

    Parameters
    ----------
    config
        The study.
    wrote
        Called with each folder that is made for its cells.

    Raises
    ------
    InputError
        If the data or the design cannot be used.
    """
    refuse_without_truth(config)
    _refuse_files_for_folders(config.directory)
    counts = config.directory / "counts"
    queries = query_names(config.data, counts)
    every = (*trials_of(config, queries), *controls_of(config, queries))
    used = list(dict.fromkeys(trial.query for trial in every))
    cells = prepare(config.data, used, counts, wrote)
    _refuse_unknown_classes(config, cells)
    if config.space.design == "search":
        from study.studies.search import conditions_of, follow_search, recall_reader

        conditions = conditions_of(config, queries, cells)
        search, plan = follow_search(config, queries, conditions, recall_reader(config.directory))
        return Study(config, queries, cells, plan, search)
    return Study(config, queries, cells, _planned(config, queries, cells))


def _refuse_files_for_folders(directory: Path) -> None:
    for place in (directory, *(directory / name for name in ("counts", "trials", "stages", "tables"))):
        if place.exists() and not place.is_dir():
            raise InputError(f"{place} is a file, where a study has a folder. Move it, or name the study otherwise.")


def _refuse_unknown_classes(config: StudyConfig, cells: Mapping[str, Cells]) -> None:
    known = class_names(cells)
    for name in config.space.settle or ():
        if name not in known:
            raise InputError(f"space.settle: {name!r} is no class.{nearest(name, known)} Known: {few(known)}.")


def following(study: Study, recall: Recall) -> Callable[[], Study]:
    """Return what reads a study anew, with all that a search or its looks then call for.

    Parameters
    ----------
    study
        As opened.
    recall
        What reads `METRIC` of a trial.
    """
    if study.search is None:
        return lambda: looked_at(study)
    from study.studies.search import conditions_of, follow_search

    # Kept between readings: what is asked of the cells takes a pass over them.
    @cache
    def conditions() -> Conditions:
        return conditions_of(study.config, study.queries, study.cells)

    def now() -> Study:
        search, plan = follow_search(study.config, study.queries, conditions(), recall)
        return replace(study, plan=plan, search=search)

    return now


def looked_at(study: Study) -> Study:
    """Return a design as its record calls for it now."""
    return replace(study, plan=_planned(study.config, study.queries, study.cells))


def _planned(config: StudyConfig, queries: Sequence[str], cells: Mapping[str, Cells]) -> Plan:
    """Plan a design as its record calls for it; while epochs grow, trainings leave what they need to go on."""
    growth = growth_of(config)
    config = at_epochs(config, growth)
    if config.space.declared:
        from study.studies.looks import at_look  # slow to import

        config = at_look(config, queries)
    plan = plan_study(config, cells, queries)
    if growth is None or growth.ended:
        return plan
    return replace(plan, stages=tuple(replace(one, leave=one.kind == "fine-tuning") for one in plan.stages))


def most_of(study: Study) -> Study:
    """Return a study with all that it can come to train: of a search, as if all candidates were equally good."""
    if study.search is None:
        most, declared = study.config, study.config.space.declared
        if declared:
            from study.studies.looks import with_replicates

            most = with_replicates(study.config, declared[-1])
        return replace(study, plan=plan_study(most, study.cells, study.queries))
    return replace(following(study, lambda key: 0.0)(), search=study.search)


def strata_of(study: Study) -> tuple[Stratum, ...]:
    """Return the levels of the tree that chance comes from."""
    return strata(study.plan.factors, study.config.scanvi.protocol)


def largest_condition(config: StudyConfig, queries: Sequence[str], cells: Mapping[str, Cells]) -> int:
    """Return the cells, reference and query, of the largest condition of a design.

    Parameters
    ----------
    config
        The study.
    queries
        Names that a level of `query` may have.
    cells
        Prepared cells by query, of those that the design has.
    """
    designed = Conditions(config, cells, trials_of(config, queries)).designed
    return max(cells[one.query].n_reference + one.n_cells for one in designed)


def steps_of(cells: int, batch_size: int) -> int:
    """Return the optimiser steps of an epoch on all of some cells, but for one that would be a minibatch of its own."""
    return math.ceil((cells - (cells % batch_size == 1)) / batch_size)
