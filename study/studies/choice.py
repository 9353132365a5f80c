"""The settings that hold up: the candidate whose worst condition has the best held-out macro recall.

Differences are paired by replicate; one no larger than its standard error is a tie, and the cheaper candidate wins it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from study.config import Settings, StudyConfig
from study.errors import InputError
from study.plan import Levels, Plan, PlannedTrial
from study.studies.search import METRIC, Search
from study.studies.study import Study
from study.trials import Result
from study.verdict import point_words


@dataclass(frozen=True)
class Choice:
    """The chosen settings, and the table they were chosen from.

    Attributes
    ----------
    settings
        Of the chosen candidate.
    levels
        Its parameters.
    others
        The other candidates, best first: their parameters, and the mean of `METRIC` in their worst condition.
    table
        One row per candidate, best first: its parameters, worst condition, mean of `METRIC` there, difference to the
        best and its standard error over replicates, optimiser steps, and whether it ties with the best.
    reason
        One sentence.
    """

    settings: Settings
    levels: Levels
    others: tuple[tuple[Levels, float], ...]
    table: pd.DataFrame
    reason: str


def choose(plan: Plan, results: Mapping[str, Result]) -> Choice:
    """Choose among the settings of a study.

    Parameters
    ----------
    plan
        The study's plan.
    results
        Results of whole replicates.

    Raises
    ------
    InputError
        If settings were not tried in the same data conditions, as in most random designs.
    ValueError
        If no replicate is whole.
    """
    parameters = [factor.name for factor in plan.factors if factor.role == "parameter"]
    rows: list[dict[str, Any]] = []
    members: dict[tuple[Any, ...], PlannedTrial] = {}
    for planned in plan.trials:
        if planned.key not in results:
            continue
        candidate = tuple((name, planned.levels[name]) for name in parameters)
        members.setdefault(candidate, planned)
        rows.append(
            {
                "candidate": candidate,
                "condition": point_words((name, level) for name, level in planned.point if name not in parameters),
                "replicate": planned.replicate.index,
                "recall": results[planned.key].metrics[METRIC],
                "steps": planned.steps,
            }
        )
    if not rows:
        raise ValueError("no replicate of the study is whole yet")
    trials = pd.DataFrame(rows)
    conditions, met = trials["condition"].nunique(), trials.groupby("candidate")["condition"].nunique()
    if (met < conditions).any():
        raise InputError(
            f"the settings of this study were not tried in the same data conditions (of {conditions}, at least "
            f"{met.min()} and at most {met.max()} each), so that nobody knows which hold up in all of them. Expected a "
            "design that crosses settings with data: 'design: factorial' or 'design: search'."
        )
    return _decide(trials, members)


def choose_found(config: StudyConfig, search: Search) -> Choice:
    """Return the winner of a search, with its candidates, best first.

    Raises
    ------
    InputError
        If it has none yet.
    """
    winner = search.winner
    if winner is None:
        raise InputError(f"{search.sentence} Run it further, with the same overrides.")
    table = search.table().sort_values("recall there", ascending=False, kind="stable").reset_index(drop=True)
    others = (search.candidates[number] for number in table["candidate"])
    table.insert(0, "chosen", table["candidate"] == search.candidates.index(winner))
    # A choice is described by its settings, then by how it did.
    how = table[["candidate", "state", "replicates"]]
    table = table.drop(columns=list(how)).join(how)
    return Choice(
        config.settings(dict(winner.levels)),
        winner.levels,
        tuple((one.levels, one.recall) for one in others if one is not winner),
        table,
        search.sentence.rstrip("."),
    )


def choice_of(study: Study, results: Mapping[str, Result]) -> Choice:
    """Choose among the settings of a study: the winner, if it is a search."""
    return choose(study.plan, results) if study.search is None else choose_found(study.config, study.search)


def _decide(trials: pd.DataFrame, members: Mapping[tuple[Any, ...], PlannedTrial]) -> Choice:
    means = trials.groupby(["candidate", "condition"])["recall"].mean()
    worst = means.groupby("candidate").idxmin().map(lambda pair: pair[1])
    steps = trials.groupby("candidate")["steps"].mean()
    series = {
        c: trials[(trials.candidate == c) & (trials.condition == worst[c])].set_index("replicate").recall
        for c in worst.index
    }
    best = max(series, key=lambda c: (series[c].mean(), -steps[c]))
    rows = []
    for candidate, values in series.items():
        difference = (series[best] - values).dropna()
        k = difference.size
        error = float(difference.std(ddof=1) / np.sqrt(k)) if k > 1 else float("nan")
        gap = float(difference.mean())
        rows.append(
            {
                **dict(candidate),
                "worst condition": worst[candidate],
                "recall there": float(values.mean()),
                "behind best": gap,
                "standard error": error,
                "steps": float(steps[candidate]),
                # Equal ones tie even where the error is 0, or unknown as with one replicate.
                "tie": candidate == best or gap == 0 or gap <= error,
                "candidate": candidate,
            }
        )
    table = pd.DataFrame(rows).sort_values(["recall there", "steps"], ascending=[False, True]).reset_index(drop=True)
    ties = table[table.tie].sort_values("steps", kind="stable")
    chosen = ties.iloc[0]
    replicates = trials.replicate.nunique()
    close = "within one standard error of {}" if replicates > 1 else "as good as {} in the only replicate"
    why = f"no other candidate is {close.format('it')}"
    if len(ties) > 1:
        best_words = f"{len(ties)} of {len(table)} candidates are {close.format('the best')}"
        why = f"{best_words}, and this is the best of those that cost least"
    reason = (
        f"worst condition ({chosen['worst condition']}) has held-out macro recall {chosen['recall there']:.3f}, "
        f"mean over {replicates} replicate{'s' if replicates > 1 else ''}; {why}"
    )
    others = table[table.candidate != chosen.candidate]
    table.insert(0, "chosen", table.candidate == chosen.candidate)
    return Choice(
        members[chosen.candidate].settings,
        chosen.candidate,
        tuple(zip(others.candidate, others["recall there"].map(float), strict=True)),
        table.drop(columns="candidate"),
        reason,
    )
