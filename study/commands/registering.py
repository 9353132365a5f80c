"""The choice of a study in MLflow's model registry."""

from __future__ import annotations

from study.cells import class_names
from study.config import dump
from study.studies import Choice, Study, files_to_keep
from study.tracking import Projection, register
from study.trials import HELD_OUT, MACRO_RECALL, metric


def registry_of(study: Study) -> Projection:
    """Return where the choice of a study is registered.

    Raises
    ------
    InputError
        If MLflow cannot be used.
    """
    return Projection(study.config, study.plan, class_names(study.cells))


def register_choice(registry: Projection, choice: Choice) -> tuple[str, list[str]]:
    """Put the chosen settings into MLflow's model registry, with the models that `transfer` made with them.

    Returns
    -------
    The version that is now called `best`, and the queries whose models are in it.

    Raises
    ------
    WritingError
        If MLflow refuses.
    """
    kept, queries = files_to_keep(registry.config, choice)
    winner = choice.table[choice.table["chosen"]].iloc[0]
    metrics = {metric(HELD_OUT, MACRO_RECALL): float(winner["recall there"])}
    return register(registry, dump(choice.settings), metrics, f"{choice.reason}.", kept), queries
