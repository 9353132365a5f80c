"""The experiment: a search space in, factors and trials out, and what is confounded in it.

A trial is one design point (a level of each factor) in one replicate (a training seed and a held-out fold).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from study.config import Crossed, Domain, Level, SearchSpace, Settings, StudyConfig
from study.errors import InputError, nearest
from study.plan.factors import Factor, Levels, factors_of, parameters_of

MOST_TRIALS = 100_000  # more of them are a slip of the keyboard, and planning would not end


@dataclass(frozen=True)
class Replicate:
    """One complete pass over the design: a training seed with one set of held-out cells."""

    index: int
    seed: int
    fold: int


@dataclass(frozen=True)
class Trial:
    """One design point in one replicate, with its settings resolved; or, beside the table, one trial of a control.

    Attributes
    ----------
    removed
        Class that the reference is trained without (control `novel`).
    """

    levels: Levels
    settings: Settings
    query: str
    replicate: Replicate
    control: str = ""
    removed: str = ""


def replicates_of(space: SearchSpace) -> tuple[Replicate, ...]:
    """Return the replicates: seed r with fold r, or seeds and folds crossed; of `auto` all that there may be.

    Past `folds` replicates the fold number goes on counting: fold ``f`` is part ``f % folds`` of random split
    ``f // folds``, so that replicates stay exchangeable.
    """
    if isinstance(space.replicates, Crossed):
        pairs = list(itertools.product(range(space.replicates.seeds), range(space.replicates.folds)))
    else:
        pairs = [(index, index) for index in range(space.passes)]
    return tuple(Replicate(index, seed, fold) for index, (seed, fold) in enumerate(pairs))


def trials_of(config: StudyConfig, queries: Sequence[str]) -> tuple[Trial, ...]:
    """Return every trial of a study, whole replicates first; of a search, those that are known before it.

    Raises
    ------
    InputError
        If a factor or level does not fit the settings or the data, or there are far too many trials.
    """
    _refuse_too_many(config.space, queries)
    if config.space.design == "search":
        _refuse_unsearchable(config)
        points = in_all_conditions(config, queries, default_of(config))
        return trials_at(config, queries, points, fresh_of(config.space))
    points = _points(config.space, queries)
    _refuse_unfit(config)
    return trials_at(config, queries, points, replicates_of(config.space))


def refuse_without_truth(config: StudyConfig) -> None:
    """Raise `InputError` for outcomes on query cells where no column has their true labels."""
    if config.query_outcomes and config.data.truth_key is None:
        raise InputError(
            f"outcomes: {', '.join(config.query_outcomes)} needs the true labels of query cells. Name their column, as "
            "in 'data.truth_key=...', or leave the outcome out."
        )


def trials_at(
    config: StudyConfig, queries: Sequence[str], points: Sequence[Levels], replicates: Sequence[Replicate]
) -> tuple[Trial, ...]:
    """Return the trials of some design points in some replicates."""
    trials = []
    for replicate in replicates:
        for levels in points:
            settings = config.settings(dict(levels))
            query = settings.query if settings.query is not None else queries[0]
            if query not in queries:
                raise InputError(f"query: {query!r} is no query.{nearest(query, queries)} Known: {', '.join(queries)}.")
            trials.append(Trial(levels, settings, query, replicate))
    return tuple(trials)


def default_of(config: StudyConfig) -> Levels:
    """Return what the parameters are where nothing is chosen: the study's own settings.

    Raises
    ------
    InputError
        If the study has no value for one of them.
    """
    found = []
    for name in parameters_of(config.space):
        value: Any = config.model_dump(include=set(Settings.model_fields))
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, bool | int | float | str):
            raise InputError(
                f"space.factors.{name}: a search is compared with the default settings, which have no value for it. "
                f"Give one, as in '{name}=...'."
            )
        found.append((name, value))
    return tuple(found)


def fresh_of(space: SearchSpace) -> tuple[Replicate, ...]:
    """Return the replicates on which a search is confirmed: those after the ones that it searches in."""
    searched = len(replicates_of(space))
    return tuple(Replicate(index, index, index) for index in range(searched, searched + (space.confirm or 0)))


def in_all_conditions(config: StudyConfig, queries: Sequence[str], chosen: Levels) -> tuple[Levels, ...]:
    """Return the design points that a choice of the parameters has: one for each combination of data levels."""
    fixed = dict(chosen)
    factors = factors_of(config.space, queries)
    levels = [(fixed[factor.name],) if factor.name in fixed else factor.levels for factor in factors]
    names = [factor.name for factor in factors]
    return tuple(tuple(zip(names, one, strict=True)) for one in itertools.product(*levels))


def controls_of(config: StudyConfig, queries: Sequence[str]) -> tuple[Trial, ...]:
    """Return the trials of the controls: in each replicate the base trial, then each control's variants of it.

    The base trial has the study's settings, and the first level of each factor. `surgery` has a trial for each query
    of the design, and one for the reference that they are mapped onto. `novel` has one here, which stands for one
    without each class: only the cells know those.
    """
    if not config.space.beside:
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
        "knn": [(settings, query)],
        "novel": [(alone, query)],
    }
    wanted = [("base", [(settings, query)]), *((name, arms[name]) for name in config.space.beside)]
    return tuple(
        Trial((), values, name, replicate, control)
        for replicate in replicates_of(config.space)
        for control, variants in wanted
        for values, name in variants
    )


def _changed(settings: Settings, **scanvi: Any) -> Settings:
    """Return the settings with some of scANVI's changed."""
    return settings.model_copy(update={"scanvi": settings.scanvi.model_copy(update=scanvi)})


def _refuse_unsearchable(config: StudyConfig) -> None:
    """Refuse what only a search cannot do, and levels that fit no setting: it would meet them late."""
    space, names = config.space, parameters_of(config.space)
    for name, spec in space.factors.items():
        if spec.domain is not None and name not in names:
            raise InputError(f"space.factors.{name}: a search tries every candidate on all data. Give it 'levels'.")
    _refuse_unfit(config)
    if not names:
        raise InputError("space.factors: a search needs settings to choose, and found data only. Name one: scvi.norm.")
    sizes = [len(levels) for name in names if (levels := space.factors[name].levels)]
    if len(sizes) == len(names) and math.prod(sizes) <= (space.candidates or 0):
        raise InputError(
            f"space.candidates: {space.candidates} candidates, and the space has {math.prod(sizes)} settings. "
            "Say 'design: factorial', which tries them all and explains them, or ask for fewer candidates."
        )


def _refuse_unfit(config: StudyConfig) -> None:
    """Refuse levels and ranges that fit no setting, of which draws would meet some late or never."""
    for name, spec in config.space.factors.items():
        domain = spec.domain
        levels = spec.levels if domain is None else _ends(domain, closed=config.space.design == "search")
        for level in levels if isinstance(levels, tuple) else ():
            try:
                config.settings({name: level})
            except InputError as error:
                whole = domain is not None and domain.type != "randint" and "whole number" in str(error)
                remedy = "draw whole numbers with 'type: randint'" if whole else "change it, or give 'levels'"
                raise InputError(f"{error} Its range is {domain}: {remedy}." if domain else str(error)) from None


def _ends(domain: Domain, closed: bool) -> tuple[Level, Level]:
    """Return the least and the largest number of a range; a search may try its upper end, a random design does not."""
    if domain.type == "randint":
        return int(domain.low), int(domain.high) - 1
    return domain.low, domain.high if closed else math.nextafter(domain.high, domain.low)


def _refuse_too_many(space: SearchSpace, queries: Sequence[str]) -> None:
    if space.design == "search":
        conditions = math.prod(len(f.levels) for f in factors_of(space, queries) if f.role == "data")
        searched = 0 if isinstance(space.replicates, Crossed) else space.passes
        trials = conditions * ((space.candidates or 0) * searched + 2 * (space.confirm or 0))
        if trials > MOST_TRIALS:
            raise InputError(
                f"space: a search of up to {trials:,} trials. Expected at most {MOST_TRIALS:,}: use fewer candidates, "
                "replicates or data levels."
            )
        return
    points = space.points or math.prod(len(factor.levels) for factor in factors_of(space, queries))
    replicates = space.passes
    if points * replicates > MOST_TRIALS:
        raise InputError(
            f"space: {points:,} design points x {replicates:,} replicates are {points * replicates:,} trials. "
            f"Expected at most {MOST_TRIALS:,}: use fewer levels, points or replicates."
        )


def _points(space: SearchSpace, queries: Sequence[str]) -> tuple[Levels, ...]:
    """Return the design points: all combinations, or random draws that every replicate shares."""
    factors = factors_of(space, queries)
    names = [factor.name for factor in factors]
    if space.design == "random":
        return _drawn(factors, space.points or 0)
    return tuple(tuple(zip(names, one, strict=True)) for one in itertools.product(*(one.levels for one in factors)))


def _drawn(factors: Sequence[Factor], points: int) -> tuple[Levels, ...]:
    """Draw different points; what comes a second time, as levels and integers do, is drawn again."""
    most = math.prod(_size(factor) for factor in factors)
    if points > most:
        raise InputError(
            f"space.points: {points} design points wanted, and the factors have {most:.0f} combinations. "
            "Ask for fewer, widen a range, or say 'design: factorial', which takes them all."
        )
    generator = np.random.default_rng(0)
    drawn: dict[Levels, None] = {}
    while len(drawn) < points:
        drawn[tuple((factor.name, _draw(factor, generator)) for factor in factors)] = None
    return tuple(drawn)


def _size(factor: Factor) -> float:
    """How many different values a factor has."""
    if factor.domain is None:
        return len(factor.levels)
    return factor.domain.high - factor.domain.low if factor.domain.type == "randint" else math.inf


def _draw(factor: Factor, generator: np.random.Generator) -> Level:
    domain = factor.domain
    if domain is None:
        level: Level = factor.levels[generator.integers(len(factor.levels))]
        return level
    if domain.type == "randint":
        return int(generator.integers(int(domain.low), int(domain.high)))
    if domain.type == "loguniform":
        from scipy import stats  # slow to import

        return float(stats.loguniform(domain.low, domain.high).rvs(random_state=generator))
    return float(generator.uniform(domain.low, domain.high))
