"""The schedule audit after training: what the finished trials recorded, and which settings changed nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

import pandas as pd

from study.config import Level
from study.plan import Condition, Plan
from study.trials import ECE, HELD_OUT, MACRO_RECALL, TRAIN, Result, metric, reestimated
from study.verdict.words import PART_WORDS, condition_label, word

MOST_SCHEDULES = 100


@dataclass(frozen=True)
class Schedule:
    """Trials that were trained alike: in one condition, over as many epochs, with as many labelled cells in each.

    Attributes
    ----------
    condition
        Which query, and how much of it.
    epochs
        Kinds of stages, and the epochs of each.
    labelled
        Labelled cells per class and epoch, in words.
    steps
        Optimiser steps of each trial.
    probes
        What each trial recorded.
    """

    condition: Condition
    epochs: tuple[tuple[str, int], ...]
    labelled: str
    steps: tuple[int, ...]
    probes: tuple[Mapping[str, Any], ...]

    @property
    def draws(self) -> list[Mapping[str, float]]:
        """How often each labelled cell was drawn, by class, in each trial."""
        return [probe.get("draws_per_cell", {}) for probe in self.probes]

    def mean_draws(self, name: str) -> float | None:
        """Return how often a labelled cell of a class was drawn, over all trials; None where none recorded it."""
        return _mean(draws.get(name) for draws in self.draws)


def schedules_of(plan: Plan, results: Mapping[str, Result]) -> tuple[Schedule, ...]:
    """Return the schedules of the finished trials, in order of appearance; of very many only the first."""
    groups: dict[tuple[Any, ...], list[tuple[int, Mapping[str, Any]]]] = {}
    for trial in plan.trials:
        if trial.key in results:
            result, labelled = results[trial.key], word(trial.settings.scanvi.n_samples_per_label)
            alike = (trial.condition, tuple(sorted(result.epochs.items(), reverse=True)), labelled)
            groups.setdefault(alike, []).append((trial.steps, result.probes))
    found = (Schedule(*alike, *zip(*members, strict=True)) for alike, members in groups.items())
    return tuple(islice(found, MOST_SCHEDULES))


def schedule_frame(schedules: Sequence[Schedule]) -> pd.DataFrame:
    """Return what each schedule really did, over all of its trials."""
    rows = []
    for at, one in enumerate(schedules, start=1):
        rows.append(
            {
                "#": at,
                "condition": condition_label(one.condition),
                "epochs": ", ".join(f"{kind} {epoch}" for kind, epoch in one.epochs),
                "labelled per class and epoch": one.labelled,
                "trials": len(one.steps),
                "optimiser steps": _range(one.steps, "{:,.0f}"),
                "final KL weight": _range((probe.get("kl_weight") for probe in one.probes), "{:.3f}"),
                "labelled batches per epoch": _range((probe.get("labelled_batches") for probe in one.probes), "{:.0f}"),
                "draws of a labelled cell": _range(
                    (value for draws in one.draws for value in draws.values()), "{:.1f}"
                ),
            }
        )
    return pd.DataFrame(rows)


def mechanism_frame(plan: Plan, results: Mapping[str, Result]) -> pd.DataFrame:
    """Return what the probes say of each condition, as means over its finished trials."""
    members: dict[Condition, list[Result]] = {}
    for trial in plan.trials:
        if trial.key in results:
            members.setdefault(trial.condition, []).append(results[trial.key])
    rows = []
    for condition, found in members.items():
        row: dict[str, Any] = {"condition": condition_label(condition), "trials": len(found)}
        row["unlabelled share of training cells"] = _mean(one.probes.get("unlabelled_share") for one in found)
        row["distance of the query"] = _mean(one.probes.get("latent_distance") for one in found)
        for part in (HELD_OUT, TRAIN):
            again, first = reestimated(part, MACRO_RECALL), metric(part, MACRO_RECALL)
            gaps = [100 * (one.probes[again] - one.metrics[first]) for one in found if again in one.probes]
            row[f"BatchNorm from the reference alone: {PART_WORDS[part]} points"] = _mean(gaps)
        row["calibration error (ECE)"] = _mean(one.metrics.get(metric(HELD_OUT, ECE)) for one in found)
        rows.append(row)
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def _range(values: Iterable[float | None], form: str) -> str:
    """Return the smallest and largest of some numbers in words."""
    known = [value for value in values if value is not None]
    ends = dict.fromkeys(form.format(value) for value in (min(known), max(known))) if known else ()
    return " to ".join(ends) or "not recorded"


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 2) if known else None


def audit_results(plan: Plan, results: Mapping[str, Result]) -> tuple[str, ...]:
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
            settings = tuple(pair for pair in trial.point if pair[0] not in data)
            recorded = (trial.steps, float(results[trial.key].probes.get("kl_weight", 0)))
            groups.setdefault((trial.replicate.index, settings), []).append(recorded)
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
                rest = tuple(pair for pair in trial.point if pair[0] != factor.name)
                # Equal files are equal predictions: they are written without dates.
                mine = found.setdefault((trial.replicate.index, rest), {})
                mine[trial.levels[factor.name]] = results[trial.key].predictions
        for one, other in combinations(factor.levels, 2):
            pairs = [(group[one], group[other]) for group in found.values() if one in group and other in group]
            if pairs and all(first == second for first, second in pairs):
                yield (
                    f"Levels {word(one)} and {word(other)} of {factor.name} gave the same predictions in all "
                    f"{len(pairs)} pairs of trials: the setting changed nothing."
                )
