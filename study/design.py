"""The experiment: a search space in, factors and trials out, and what is confounded in it.

A trial is one design point (a level of each factor) in one replicate (a training seed and a held-out fold).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from study.config import Crossed, Domain, InputError, Level, SearchSpace, Settings, StudyConfig, nearest

Role = Literal["data", "parameter"]
# Part of every key: raise it when code changes what a trial gives, so that old results are not taken for new ones.
SCHEMA = 1
MOST_TRIALS = 100_000  # more of them are a slip of the keyboard, and planning would not end


@dataclass(frozen=True)
class Factor:
    """One thing that varies. Its first level is the baseline of differences."""

    name: str
    levels: tuple[Level, ...]
    role: Role


@dataclass(frozen=True)
class Replicate:
    """One complete pass over the design: a training seed with one set of held-out cells."""

    index: int
    seed: int
    fold: int


@dataclass(frozen=True)
class Trial:
    """One design point in one replicate, with its settings resolved; or, beside the table, one trial of a control."""

    levels: tuple[tuple[str, Level], ...]
    settings: Settings
    query: str
    replicate: Replicate
    control: str = ""


def role_of(name: str) -> Role:
    """Return the role that follows from a factor's name: `query*` is data, the others are parameters."""
    return "data" if name.startswith("query") else "parameter"


def factors_of(space: SearchSpace, queries: Sequence[str]) -> tuple[Factor, ...]:
    """Return the factors with levels, in the order of the search space.

    Parameters
    ----------
    space
        The search space. A factor that a random design draws from a range has no levels.
    queries
        Names that a level of `query` may have; the built-in twins `self` and `none` come last.

    Raises
    ------
    InputError
        If a level of `query` is no query.
    """
    found = []
    for name, spec in space.factors.items():
        real = tuple(query for query in queries if query not in ("self", "none"))
        levels = real if spec.levels == "all" else spec.levels or ()
        if name == "query":
            levels = tuple(map(str, levels))  # `4` is the query '4'
            for level in levels:
                if level not in queries:
                    raise InputError(
                        f"space.factors.query: {level!r} is no query.{nearest(str(level), queries)} "
                        f"Queries are: {', '.join(queries)}."
                    )
            if len(levels) < 2:
                raise InputError(
                    f"space.factors.query: needs at least 2 queries, the data has {list(levels)}. "
                    "Leave the factor out, or name more queries."
                )
        found.append(Factor(name, tuple(levels), spec.role or role_of(name)))
    return tuple(found)


def replicates_of(space: SearchSpace) -> tuple[Replicate, ...]:
    """Return the replicates: seed r with fold r, or seeds and folds crossed.

    Past `folds` replicates the fold number goes on counting: fold ``f`` is part ``f % folds`` of random split
    ``f // folds``, so that replicates stay exchangeable.
    """
    if isinstance(space.replicates, Crossed):
        pairs = list(itertools.product(range(space.replicates.seeds), range(space.replicates.folds)))
    else:
        pairs = [(index, index) for index in range(space.replicates)]
    return tuple(Replicate(index, seed, fold) for index, (seed, fold) in enumerate(pairs))


def folds_of(space: SearchSpace) -> int:
    """Return in how many parts the reference is divided."""
    return space.replicates.folds if isinstance(space.replicates, Crossed) else space.folds


def trials_of(config: StudyConfig, queries: Sequence[str]) -> tuple[Trial, ...]:
    """Return every trial of a study, whole replicates first.

    Raises
    ------
    InputError
        If a factor or level does not fit the settings or the data, or there are far too many trials.
    """
    _refuse_too_many(config.space, queries)
    points = list(_points(config.space, queries))
    trials = []
    for replicate in replicates_of(config.space):
        for levels in points:
            settings = config.settings(dict(levels))
            query = settings.query if settings.query is not None else queries[0]
            if query not in queries:
                raise InputError(f"query: {query!r} is no query.{nearest(query, queries)} Known: {', '.join(queries)}.")
            trials.append(Trial(levels, settings, query, replicate))
    return tuple(trials)


def controls_of(config: StudyConfig, queries: Sequence[str]) -> tuple[Trial, ...]:
    """Return the trials of the controls: in each replicate the base trial, then each control's variants of it.

    The base trial has the study's settings, and the first level of each factor. `surgery` has a trial for each query
    of the design, and one for the reference that they are mapped onto.
    """
    if not config.space.controls:
        return ()
    factors = {factor.name: factor for factor in factors_of(config.space, queries)}
    settings = config.settings({name: factor.levels[0] for name, factor in factors.items() if factor.levels})
    query = settings.query if settings.query is not None else queries[0]
    alone = _changed(settings, protocol="joint")
    mapped = factors["query"].levels if "query" in factors else (query,)
    arms: dict[str, list[tuple[Settings, str]]] = {
        "none": [(alone, "none")],
        "self": [(settings, "self")],
        # The reference model before a query is mapped onto it, then each query.
        "surgery": [
            (alone.model_copy(update={"budget": "epochs"}), "none"),
            *((_changed(settings, protocol="surgery"), str(name)) for name in mapped if name != "none"),
        ],
        "shuffled": [(settings, query)],
        "repeat": [(settings, query)],
        "logistic": [(settings, query)],
    }
    wanted = [("base", [(settings, query)]), *((name, arms[name]) for name in config.space.controls)]
    return tuple(
        Trial((), values, name, replicate, control)
        for replicate in replicates_of(config.space)
        for control, variants in wanted
        for values, name in variants
    )


def _changed(settings: Settings, **scanvi: Any) -> Settings:
    """Return the settings with some of scANVI's changed."""
    return settings.model_copy(update={"scanvi": settings.scanvi.model_copy(update=scanvi)})


def _refuse_too_many(space: SearchSpace, queries: Sequence[str]) -> None:
    points = space.points or math.prod(len(factor.levels) for factor in factors_of(space, queries))
    crossed = space.replicates
    replicates = crossed.seeds * crossed.folds if isinstance(crossed, Crossed) else crossed
    if points * replicates > MOST_TRIALS:
        raise InputError(
            f"space: {points:,} design points x {replicates:,} replicates are {points * replicates:,} trials. "
            f"Expected at most {MOST_TRIALS:,}: use fewer levels, points or replicates."
        )


def _points(space: SearchSpace, queries: Sequence[str]) -> Iterator[tuple[tuple[str, Level], ...]]:
    """Yield the design points: all combinations, or random draws that every replicate shares."""
    factors = factors_of(space, queries)
    names = [factor.name for factor in factors]
    if space.design == "factorial":
        for combination in itertools.product(*(factor.levels for factor in factors)):
            yield tuple(zip(names, combination, strict=True))
        return
    generator = np.random.default_rng(0)
    for _ in range(space.points or 0):
        drawn = []
        for factor in factors:
            domain = space.factors[factor.name].domain
            level = _draw(domain, generator) if domain else factor.levels[generator.integers(len(factor.levels))]
            drawn.append((factor.name, level))
        yield tuple(drawn)


def _draw(domain: Domain, generator: np.random.Generator) -> Level:
    if domain.type == "randint":
        return int(generator.integers(int(domain.low), int(domain.high)))
    if domain.type == "loguniform":
        return float(stats.loguniform(domain.low, domain.high).rvs(random_state=generator))
    return float(generator.uniform(domain.low, domain.high))


def key_of(*parts: Any) -> str:
    """Return the sha256 (hex) of some plain values in canonical JSON."""
    text = json.dumps([SCHEMA, *parts], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
