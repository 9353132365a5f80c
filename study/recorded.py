"""The schedule audit after training: what the finished trials recorded, and which settings changed nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from study.config import Level
from study.plan import Plan
from study.results import Result


def audit(plan: Plan, results: Mapping[str, Result]) -> tuple[str, ...]:
    """Say in sentences what differed between conditions at equal settings, and what changed nothing.

    Parameters
    ----------
    plan
        The study's plan.
    results
        Finished trials by key.
    """
    return (*_uneven(plan, results), *_unchanged(plan, results))


def _uneven(plan: Plan, results: Mapping[str, Result]) -> Iterator[str]:
    """Say which recorded parts of the schedule differ between conditions of one setting and replicate."""
    data = {factor.name for factor in plan.factors if factor.role == "data"}
    groups: dict[object, list[tuple[int, float]]] = {}
    for trial in plan.trials:
        if trial.key in results:
            settings = tuple(pair for pair in trial.trial.levels if pair[0] not in data)
            recorded = (trial.steps, float(results[trial.key].probes.get("kl_weight", 0)))
            groups.setdefault((trial.trial.replicate.index, settings), []).append(recorded)
    names = (("optimiser steps", "{:,.0f} to {:,.0f}"), ("final KL weight", "{:.3f} to {:.3f}"))
    for at, (what, form) in enumerate(names):
        ends = [(min(values), max(values)) for values in ([one[at] for one in group] for group in groups.values())]
        low, high = max(ends, key=lambda pair: pair[1] / pair[0] if pair[0] else 1, default=(0, 0))
        if high > 1.05 * low:
            yield (
                f"Conditions trained with unequal {what}: at the same settings {form.format(low, high)}. "
                "What the data does includes that."
            )


def _unchanged(plan: Plan, results: Mapping[str, Result]) -> Iterator[str]:
    """Say which levels of a setting gave identical predictions wherever all else was equal."""
    for factor in plan.factors:
        if factor.role != "parameter":
            continue
        found: dict[object, dict[Level, str]] = {}
        for trial in plan.trials:
            if trial.key in results:
                rest = tuple(pair for pair in trial.trial.levels if pair[0] != factor.name)
                # Equal files are equal predictions: they are written without dates.
                mine = found.setdefault((trial.trial.replicate.index, rest), {})
                mine[trial.levels[factor.name]] = results[trial.key].predictions
        for one, other in combinations(factor.levels, 2):
            pairs = [(group[one], group[other]) for group in found.values() if one in group and other in group]
            if pairs and all(first == second for first, second in pairs):
                yield (
                    f"Levels {_word(one)} and {_word(other)} of {factor.name} gave the same predictions in all "
                    f"{len(pairs)} pairs of trials: the setting changed nothing."
                )


def _word(level: Level) -> str:
    return str(level).lower() if isinstance(level, bool) else str(level)
