"""An adaptive search: the best settings, for those who need no explanation, and whether they beat the default ones.

What a search does next follows from the results on disk alone: it is replayed from its seed each time. So running is
resuming here as well, and a search that was interrupted ends as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from study.cells import Cells
from study.config import SearchSpace, StudyConfig
from study.plan import (
    Conditions,
    Factor,
    Levels,
    Plan,
    Replicate,
    Stage,
    Trial,
    default_of,
    factors_of,
    fresh_of,
    in_all_conditions,
    merge,
    parameters_of,
    plan_trial,
    refuse_twice,
    trials_at,
    trials_of,
)
from study.studies.candidates import Candidate, Group, mean_of_worst, replay
from study.trials import HELD_OUT, MACRO_RECALL, metric, read_failures, read_result
from study.verdict import point_words

METRIC = metric(HELD_OUT, MACRO_RECALL)
# `METRIC` by trial key: NaN of a trial that failed, None of one that is not trained yet.
Recall = Callable[[str], float | None]
NOT_EXPLAINED = (
    "A search is not a designed experiment: what it trains next depends on what it found, so nothing can be said about "
    "how much of the differences a setting, the data or chance explains. Use 'design: factorial' for that."
)


@dataclass(frozen=True)
class Confirmation:
    """The winner against the default settings on fresh replicates: `METRIC` of the worst condition, paired.

    Attributes
    ----------
    winner, default
        What each gave, by replicate.
    difference, lower, upper
        Percentage points, with the ends of a 95% t interval.
    """

    winner: tuple[Group, ...]
    default: tuple[Group, ...]
    difference: float
    lower: float
    upper: float

    @property
    def sentence(self) -> str:
        """What it says, in words."""
        found = (
            f"On {len(self.winner)} fresh replicates the worst condition's held-out macro recall is "
            f"{mean_of_worst(self.winner):.3f} with the winner and {mean_of_worst(self.default):.3f} with the default "
            f"settings: {self.difference:+.1f} points [{self.lower:.1f}, {self.upper:.1f}]."
        )
        if self.lower > 0:
            return f"{found} The winner is better."
        if self.upper < 0:
            return f"{found} The winner is worse: what the search saw in it was luck."
        return f"{found} The interval includes 0: it is not shown that the winner is better than the default settings."

    def to_frame(self) -> pd.DataFrame:
        """Return the mean `METRIC` of both: of the worst condition, with the interval, then of each condition."""
        winner, default = pd.DataFrame(self.winner), pd.DataFrame(self.default)
        row = {"condition": "the worst", "winner": winner.min(axis=1).mean(), "default": default.min(axis=1).mean()}
        row |= {"difference (points)": self.difference, "lower": self.lower, "upper": self.upper}
        each = [{"condition": name, "winner": winner[name].mean(), "default": default[name].mean()} for name in winner]
        frame = pd.DataFrame([row | {"replicates": len(winner)}, *each])
        frame["difference (points)"] = 100 * (frame["winner"] - frame["default"])
        return frame


@dataclass(frozen=True)
class Search:
    """A search as far as results tell.

    Attributes
    ----------
    candidates
        In the order in which they were asked for.
    default
        The study's own settings, which the winner is compared with.
    winner
        The best of the candidates that were tried in all replicates, once every candidate is settled.
    confirmation
        None until both have been trained in all fresh replicates, and where the winner is the default settings.
    """

    candidates: tuple[Candidate, ...]
    default: Levels
    winner: Candidate | None
    confirmation: Confirmation | None

    @property
    def sentence(self) -> str:
        """How far it is, or how it ended, in words."""
        settled = [one for one in self.candidates if one.state != "open"]
        if len(settled) < len(self.candidates):
            return f"The search is not over: {len(settled)} candidates are settled."
        if self.winner is None:
            return f"None of {len(settled)} candidates could be trained to its end, so there is no winner."
        pruned, failed = (sum(one.state == state for one in settled) for state in ("pruned", "failed"))
        chosen = point_words(self.winner.levels)
        found = (
            f"The best of {len(settled)} candidates ({pruned} pruned, {failed} failed): {chosen}; worst condition "
            f"{self.winner.worst}, held-out macro recall {self.winner.recall:.3f} in the search."
        )
        if self.winner.levels == self.default:
            return f"{found} These are the default settings: the search found none that are better."
        if self.confirmation is None:
            return f"{found} It is not confirmed: of the trials on fresh replicates some are missing or failed."
        return f"{found} {self.confirmation.sentence}"

    def table(self) -> pd.DataFrame:
        """Return one row per candidate in the order of asking: its settings, how it ended, and what it gave."""
        rows = [
            {
                "candidate": number,
                **dict(one.levels),
                "state": one.state,
                "replicates": len(one.groups),
                "worst condition": one.worst,
                "recall there": one.recall,
            }
            for number, one in enumerate(self.candidates)
        ]
        return pd.DataFrame(rows)

    def frames(self) -> dict[str, pd.DataFrame]:
        """Return its tables by name."""
        confirmed = {"confirmation": self.confirmation.to_frame()} if self.confirmation else {}
        return {"candidates": self.table(), **confirmed}

    def facts(self) -> dict[str, Any]:
        """Return what commands print as JSON."""
        winner, found = self.winner, self.confirmation
        return {
            "sentence": self.sentence,
            "candidates": [
                {**dict(one.levels), "state": one.state, "recall": one.recall if one.groups else None}
                for one in self.candidates
            ],
            "winner": dict(winner.levels) if winner else None,
            "difference": found.difference if found else None,
            "interval": [found.lower, found.upper] if found else None,
        }


def compare_settings(winner: Sequence[Group], default: Sequence[Group]) -> Confirmation:
    """Compare two settings replicate by replicate: the mean difference of the worst condition, and its t interval.

    Parameters
    ----------
    winner, default
        Groups of the same replicates, at least 2.
    """
    differences = 100 * np.array([min(a.values()) - min(b.values()) for a, b in zip(winner, default, strict=True)])
    middle = float(differences.mean())
    half = float(stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences))
    return Confirmation(tuple(winner), tuple(default), middle, middle - half, middle + half)


def follow_search(
    config: StudyConfig, queries: Sequence[str], conditions: Conditions, recall: Recall
) -> tuple[Search, Plan]:
    """Return a search as far as results tell, and every trial that it calls for; `conditions` are the default's."""
    space, default = config.space, default_of(config)
    stages: dict[str, Stage] = {}

    @cache
    def group(levels: Levels, index: int) -> tuple[Trial, ...]:
        points = in_all_conditions(config, queries, levels)
        return trials_at(config, queries, points, [Replicate(index, index, index)])

    def measure(levels: Levels, index: int) -> Group | None:
        found: dict[str, float] = {}
        for trial in group(levels, index):
            value = recall(plan_trial(trial, conditions, stages).key)
            if value is None:
                return None
            found[_condition(space, trial.levels)] = value
        return found

    candidates = tuple(replay(space, default, measure))
    finished = [one for one in candidates if one.state == "finished"]
    over = all(one.state != "open" for one in candidates)
    # Of equal ones the last, so that the default settings, which come first, are compared with others if they can be.
    winner = max(reversed(finished), key=lambda one: one.recall) if over and finished else None
    called = [(one.levels, at) for one in candidates for at in range(one.wanted)]
    fresh = [one.index for one in fresh_of(space)]
    called += [(levels, at) for levels in ([winner.levels] if winner else []) + [default] for at in fresh]
    trials = [trial for one in dict.fromkeys(called) for trial in group(*one)]
    plan = merge(_factors(config, queries, default), trials, conditions)
    # Settings that come to the same (a budget, where all sizes are equal) are one trial.
    plan = replace(plan, trials=tuple({one.key: one for one in reversed(plan.trials)}.values())[::-1])
    other = winner if winner and winner.levels != default else None
    confirmed = [(measure(other.levels, at), measure(default, at)) for at in fresh] if other else []
    return Search(candidates, default, winner, _confirmation(confirmed)), plan


def conditions_of(config: StudyConfig, queries: Sequence[str], cells: Mapping[str, Cells]) -> Conditions:
    """Return the data conditions of a search, which are those of its default settings.

    Raises
    ------
    InputError
        If a data level does not fit the cells, or two of them are the same.
    """
    known = trials_of(config, queries)
    conditions = Conditions(config, cells, known)
    refuse_twice([plan_trial(trial, conditions, {}) for trial in known])
    return conditions


def recall_reader(directory: Path) -> Recall:
    """Return what reads `METRIC` of a trial, each result once: they grow with the cells."""
    known: dict[str, float] = {}

    def read(key: str) -> float | None:
        if key not in known:
            result = read_result(directory, key)
            if result is None:
                return float("nan") if read_failures(directory, [key]) else None
            known[key] = result.metrics[METRIC]
        return known[key]

    return read


def _condition(space: SearchSpace, levels: Levels) -> str:
    chosen = parameters_of(space)
    return point_words((name, level) for name, level in levels if name not in chosen)


def _factors(config: StudyConfig, queries: Sequence[str], default: Levels) -> tuple[Factor, ...]:
    """Return the factors, with the default among their levels: what is confirmed has it, even if no candidate may."""
    own = dict(default)
    return tuple(
        replace(factor, levels=(*factor.levels, own[factor.name]))
        if factor.levels and factor.name in own and own[factor.name] not in factor.levels
        else factor
        for factor in factors_of(config.space, queries)
    )


def _confirmation(pairs: Sequence[tuple[Group | None, Group | None]]) -> Confirmation | None:
    whole = [(a, b) for a, b in pairs if a and b and not math.isnan(mean_of_worst((a, b)))]
    if not whole or len(whole) < len(pairs):
        return None
    return compare_settings([winner for winner, _ in whole], [default for _, default in whole])
