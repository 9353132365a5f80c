"""A view of a study's trials in MLflow, with an address of its own: their factors and recalls as charts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from mlflow import MlflowClient

from study.config import FactorSpec

KEY = "trials"
# Where MLflow keeps what its own pages share; an address with the key shows it.
TAG = f"mlflow.sharedViewState.{KEY}"
TAG_LIMIT = 5000  # characters
FILTER = "tags.kind = 'trial'"
MACRO, RECALL = "heldout/macro_recall", "heldout/recall/"
MOST = 12  # recalls, that a chart has room for


def share_trials(client: MlflowClient, name: str, factors: Mapping[str, FactorSpec]) -> str:
    """Keep a view of a study's trials with its experiment.

    Parameters
    ----------
    client
        Of the store.
    name
        Of the study.
    factors
        What varies.

    Returns
    -------
    The part of its address that follows the server's; empty if the store shows no trial of the study.
    """
    experiment = client.get_experiment_by_name(name)
    some = client.search_runs([experiment.experiment_id], FILTER, max_results=1) if experiment else []
    if not some:
        return ""
    varied = [factor for factor in factors if factor in some[0].data.params]
    recalls = sorted(metric for metric in some[0].data.metrics if metric.startswith(RECALL))[:MOST]
    # MLflow's parallel coordinates leave out every run with "all" where another has 30.
    drawn = [factor for factor in varied if not _mixed(factors[factor])]
    text = json.dumps(_view(varied, drawn, recalls))
    while len(text) > TAG_LIMIT and recalls:
        recalls.pop()
        text = json.dumps(_view(varied, drawn, recalls))
    if experiment.tags.get(TAG) != text:
        client.set_experiment_tag(experiment.experiment_id, TAG, text)
    words = {"workflowType": "machine_learning", "viewStateShareKey": KEY, "compareRunsMode": "CHART"}
    return f"/#/experiments/{experiment.experiment_id}/runs?{urlencode(words)}"


def _mixed(factor: FactorSpec) -> bool:
    """Whether some levels of a factor are numbers, and some words."""
    levels = factor.levels if isinstance(factor.levels, list | tuple) else ()
    return len({isinstance(level, int | float) and not isinstance(level, bool) for level in levels}) > 1


def _view(factors: Sequence[str], drawn: Sequence[str], recalls: Sequence[str]) -> dict[str, Any]:
    """Return a view as MLflow's pages keep it: trials, best first, factors and recalls as columns and as charts."""
    charts: list[tuple[str, Sequence[str], Sequence[str]]] = [("factors", drawn, [MACRO])]
    if len(recalls) > 1:
        charts.append(("classes", (), recalls))
    return {
        "searchFilter": FILTER,
        "orderByKey": f"metrics.`{MACRO}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": [
            *(f"params.`{one}`" for one in factors),
            *(f"metrics.`{one}`" for one in (MACRO, *recalls)),
        ],
        "runsHiddenMode": "SHOW_ALL",
        "isAccordionReordered": True,  # else what MLflow makes of its own accord comes first
        "compareRunSections": [
            {"uuid": KEY, "name": "Trials", "display": True, "isReordered": True, "columns": 1, "cardHeight": 420}
        ],
        "compareRunCharts": [
            {
                "type": "PARALLEL",
                "uuid": name,
                "metricSectionId": KEY,
                "deleted": False,
                "isGenerated": False,
                "showAllRuns": True,
                "selectedParams": list(params),
                "selectedMetrics": list(metrics),
            }
            for name, params, metrics in charts
            if len(params) + len(metrics) > 1
        ],
    }
