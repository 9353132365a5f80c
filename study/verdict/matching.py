"""How much of the difference between queries survives when they are matched in size, in depth, or in both."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from study.config import QuerySpec
from study.plan import Plan
from study.trials import HELD_OUT, MACRO_RECALL, RECALL, TRAIN, Result, metric

METRICS = tuple(metric(part, measured) for part in (HELD_OUT, TRAIN) for measured in (MACRO_RECALL, RECALL))
AS_THEY_ARE = "as they are"


def matched_spread(queries: Mapping[str, QuerySpec], plan: Plan, results: Mapping[str, Result]) -> pd.DataFrame:
    """Return the standard deviation between queries, as they are and matched.

    Parameters
    ----------
    queries
        How each query is made, which says of which others it is a matched twin.
    plan
        The study's plan, with both among the levels of the factor `query`.
    results
        Finished trials by key.

    Returns
    -------
    One row per metric and way of matching, of the same queries: `metric`, `queries` (as they are, or matched how),
    `compared` (how many), `replicates`, `sd` (between queries, in points; 0 where they differ no more than by chance)
    and `chance` (standard deviation of a query's mean in one replicate). Empty where fewer than two queries have
    matched twins, or fewer than two replicates are whole.

    Notes
    -----
    With y the mean over all settings, by query and replicate: the mean square between queries, less that of
    query x replicate, over the number of replicates.
    """
    families = _families(queries)
    rows = []
    means = _means(plan, results)
    for way in dict.fromkeys(way for ways in families.values() for way in ways):
        pairs = [(name, ways[way]) for name, ways in families.items() if way in ways]
        for measured, table in means.items():
            found = [pair for pair in pairs if set(pair) <= set(table.columns)]
            whole = table[[name for pair in found for name in pair]].dropna()
            if len(found) > 1 and len(whole) > 1:
                for label, at in ((f"{AS_THEY_ARE} (those matched in {way})", 0), (f"matched in {way}", 1)):
                    between, chance = _between(whole[[pair[at] for pair in found]].to_numpy())
                    rows.append((measured, label, len(found), len(whole), between, chance))
    return pd.DataFrame(rows, columns=["metric", "queries", "compared", "replicates", "sd", "chance"])


def _families(queries: Mapping[str, QuerySpec]) -> dict[str, dict[str, str]]:
    """Matched twins of each query that is not, by the way of matching."""

    def plain(wanted: QuerySpec) -> QuerySpec:
        return wanted.model_copy(update={"match_size": False, "match_depth": False})

    families: dict[str, dict[str, str]] = {}
    for name, wanted in queries.items():
        for other, twin in queries.items():
            ways = [way for way in ("size", "depth") if getattr(twin, f"match_{way}")]
            if ways and plain(wanted) == wanted == plain(twin):
                families.setdefault(name, {})[" and ".join(ways)] = other
    return families


def _means(plan: Plan, results: Mapping[str, Result]) -> dict[str, pd.DataFrame]:
    """Means over all settings in points, by metric: replicates x queries; NaN where a trial is missing."""
    rows = []
    for trial in plan.trials:
        metrics = results[trial.key].metrics if trial.key in results else {}
        where = {"replicate": trial.replicate.index, "query": trial.query}
        rows.append(where | {name: value for name, value in metrics.items() if name.startswith(METRICS)})
    table = pd.DataFrame(rows)
    names = [name for name in table.columns if name not in ("replicate", "query")]
    grouped = table.groupby(["replicate", "query"])
    # A mean over some of the settings would be no fair comparison.
    means = 100 * grouped[names].mean().where(grouped[names].count().eq(grouped.size(), axis=0))
    return {name: means[name].unstack("query") for name in names}


def _between(values: np.ndarray) -> tuple[float, float]:
    """Standard deviations between columns and of column x row, shape (replicates, queries)."""
    replicates, queries = values.shape
    centred = values - values.mean(axis=1, keepdims=True)
    effects = centred.mean(axis=0)
    rest = float(((centred - effects) ** 2).sum() / ((replicates - 1) * (queries - 1)))
    mean_square = float(replicates * (effects**2).sum() / (queries - 1))
    return float(np.sqrt(max(0.0, (mean_square - rest) / replicates))), float(np.sqrt(rest))
