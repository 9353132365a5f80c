"""Which trials of a study tell of a query: those that had all of its cells, in two replicates at least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from study.cells import Cells
from study.errors import InputError
from study.plan import Condition, Plan, PlannedTrial
from study.trials import Result

FEWEST_REPLICATES = 2


def enough_trials(query: str, plan: Plan, results: Mapping[str, Result], cells: Cells) -> bool:
    """Whether trials of two replicates or more are finished that label all cells of a query."""
    return _n_replicates(whole_trials(query, plan, results, cells)) >= FEWEST_REPLICATES


def refuse_too_few(query: str, plan: Plan, trials: Sequence[PlannedTrial], cells: Cells) -> None:
    """Raise `InputError` with the reason why there is too little to put together."""
    replicates = _n_replicates(trials)
    if replicates >= FEWEST_REPLICATES:
        return
    expected = "Expected two replicates at least, to see what trainings agree on"
    if not any(is_whole(trial.condition, query, cells) for trial in plan.trials):
        raise InputError(
            f"query {query!r}: the study has no trial with all of its {cells.n_query:,} cells. {expected}: run it with "
            "this query, and a level 'all' of query_cells."
        )
    if not trials:
        raise InputError(
            f"query {query!r}: no trial with all of its {cells.n_query:,} cells is finished with these settings. "
            f"{expected}: run the study, or give the overrides that it was run with."
        )
    raise InputError(
        f"query {query!r}: {replicates} replicate of it is finished with all of its {cells.n_query:,} cells. "
        f"{expected}: run the study with more of 'space.replicates'."
    )


def is_whole(one: Condition, query: str, cells: Cells) -> bool:
    """Whether a condition has all cells of a query."""
    return (one.query, one.n_cells, one.draw) == (query, cells.n_query, 0)


def whole_trials(query: str, plan: Plan, results: Mapping[str, Result], cells: Cells) -> list[PlannedTrial]:
    """Return the finished trials that label all cells of a query, in the order that they have."""
    return [trial for trial in plan.trials if trial.key in results and is_whole(trial.condition, query, cells)]


def _n_replicates(trials: Sequence[PlannedTrial]) -> int:
    return len({trial.replicate.index for trial in trials})
