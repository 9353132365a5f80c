"""What a search tries: Optuna asks for candidates, and is told what they gave. The only module that imports optuna.

A candidate is one choice of all parameters. It is tried group by group: a group is one replicate of it in every data
condition, and is worth as much as the worst of them. A candidate is pruned between its groups, never inside one. Seed
and held-out cells belong to the replicate: nothing here can choose them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from study.config import FactorSpec, Level, SearchSpace
from study.plan import Levels, parameters_of, replicates_of

# Asked for together, so that workers need not wait for one candidate to learn from the last.
AT_ONCE = 4
# So many are drawn at random first: with fewer there is nothing to learn from.
RANDOM = 2 * AT_ONCE
ASKS = 100
SEED = 0
State = Literal["open", "finished", "pruned", "failed"]
# Held-out macro recall by data condition; NaN where a trial failed.
Group = Mapping[str, float]
Measure = Callable[[Levels, int], Group | None]
Distribution = CategoricalDistribution | FloatDistribution | IntDistribution


@dataclass(frozen=True)
class Candidate:
    """One choice of the parameters, as far as it has been tried.

    Attributes
    ----------
    groups
        What its groups gave, one per replicate, in order.
    wanted
        Groups that it takes, as far as can be told now.
    """

    levels: Levels
    state: State
    groups: tuple[Group, ...]
    wanted: int

    @property
    def recall(self) -> float:
        """Mean over its groups of the worst condition's held-out macro recall; NaN without a group."""
        return mean_of_worst(self.groups)

    @property
    def worst(self) -> str:
        """The condition with the lowest mean; empty without a group."""
        return str(pd.DataFrame(self.groups).mean().idxmin()) if self.groups else ""


def mean_of_worst(groups: Sequence[Group]) -> float:
    """Return the mean over groups of their worst condition; NaN without a group, or where a trial failed."""
    return float(np.mean([np.min([*group.values()]) for group in groups])) if groups else float("nan")


def replay(space: SearchSpace, default: Levels, measure: Measure) -> list[Candidate]:
    """Return every candidate that is called for, as far as results tell.

    Parameters
    ----------
    space
        The search space.
    default
        Asked for first, where the space holds it.
    measure
        What a group gave, by levels and replicate: NaN where a trial failed, None if it is not trained yet.

    Returns
    -------
    In the order of asking. Those asked for together do not know of each other's results; if one of them is still open,
    nothing more can be asked for.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ranges = {name: _range(space.factors[name]) for name in parameters_of(space)}
    sampler = optuna.samplers.TPESampler(seed=SEED, n_startup_trials=RANDOM, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    if all(_holds(ranges[name], level) for name, level in default):
        study.enqueue_trial(dict(default))
    found: list[Candidate] = []
    while len(found) < (space.candidates or 0):
        asked = _ask(study, ranges, min(AT_ONCE, (space.candidates or 0) - len(found)), {c.levels for c in found})
        rivals = [one for one in found if one.state == "finished"]
        together = [_judge(levels, len(replicates_of(space)), rivals, measure) for levels in asked]
        found += together
        if not asked or any(one.state == "open" for one in together):
            break
        for trial, one in zip(asked.values(), together, strict=True):
            _tell(study, trial, one)
    return found


def _ask(
    study: optuna.Study, ranges: Mapping[str, Distribution], wanted: int, known: set[Levels]
) -> dict[Levels, optuna.Trial]:
    """Ask for new candidates; fewer than wanted where Optuna keeps naming old ones."""
    asked: dict[Levels, optuna.Trial] = {}
    for _ in range(ASKS):
        if len(asked) == wanted:
            break
        trial = study.ask(dict(ranges))
        levels = tuple((name, trial.params[name]) for name in ranges)
        if levels in known or levels in asked:
            study.tell(trial, state=TrialState.FAIL)  # nothing is learnt from it
        else:
            asked[levels] = trial
    return asked


def _judge(levels: Levels, replicates: int, rivals: Sequence[Candidate], measure: Measure) -> Candidate:
    """Follow one candidate through its groups: after each but the last, it must not be below the median of rivals."""
    groups: list[Group] = []
    while len(groups) < replicates:
        group = measure(levels, len(groups))
        if group is None:
            return Candidate(levels, "open", tuple(groups), len(groups) + 1 if rivals else replicates)
        if math.isnan(mean_of_worst([group])):
            return Candidate(levels, "failed", tuple(groups), len(groups) + 1)
        groups.append(group)
        behind = rivals and mean_of_worst(groups) < np.median([mean_of_worst(r.groups[: len(groups)]) for r in rivals])
        if behind and len(groups) < replicates:
            return Candidate(levels, "pruned", tuple(groups), len(groups))
    return Candidate(levels, "finished", tuple(groups), replicates)


def _tell(study: optuna.Study, trial: optuna.Trial, candidate: Candidate) -> None:
    for at in range(len(candidate.groups)):
        trial.report(mean_of_worst(candidate.groups[: at + 1]), at)
    if candidate.state == "finished":
        study.tell(trial, candidate.recall)
    else:
        states = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        study.tell(trial, state=states[candidate.state])


def _range(spec: FactorSpec) -> Distribution:
    """Return what Optuna chooses from; the upper end of a randint is not among it."""
    if spec.domain is None:
        return CategoricalDistribution(tuple(spec.levels or ()))
    if spec.domain.type == "randint":
        return IntDistribution(int(spec.domain.low), int(spec.domain.high) - 1)
    return FloatDistribution(spec.domain.low, spec.domain.high, log=spec.domain.type == "loguniform")


def _holds(one: Distribution, level: Level) -> bool:
    if isinstance(one, CategoricalDistribution):
        return level in one.choices
    if isinstance(level, bool | str) or (isinstance(one, IntDistribution) and not isinstance(level, int)):
        return False
    return one.low <= level <= one.high
