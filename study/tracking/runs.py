"""Runs of an MLflow experiment that something else made, as a table."""

from __future__ import annotations

import pandas as pd

from study.config import Tracking
from study.errors import InputError, few, nearest
from study.tracking.database import database_of
from study.tracking.store import open_store, refusals

MOST = 1000


def runs_of(tracking: Tracking, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the finished runs of an experiment: their names with their parameters, and their metrics as they ended.

    Raises
    ------
    InputError
        If the store cannot be used, or has no such experiment, or that has no finished run.
    """
    if tracking.uri is None and not database_of(tracking).is_file():
        raise InputError(
            f"mlflow:{name}: there is no {database_of(tracking)}. Say where MLflow keeps its runs, with "
            "tracking.directory=... or tracking.uri=..."
        )
    with refusals(tracking):
        client = open_store(tracking)
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            known = [one.name for one in client.search_experiments()]
            raise InputError(f"mlflow:{name}: no such experiment.{nearest(name, known)} There are: {few(known)}.")
        runs = client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'", max_results=MOST)
    # The run that stands for a whole study has no metrics of its own training.
    made = [run for run in runs if run.data.params]
    if not made:
        raise InputError(f"mlflow:{name}: has no finished run with parameters. Expected one run per training.")
    params = pd.DataFrame([{"run": run.info.run_name, **run.data.params} for run in made])
    return params, pd.DataFrame([run.data.metrics for run in made])
