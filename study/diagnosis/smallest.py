"""The smallest study that would tell what some runs cannot: its design, its cost in runs, and how sharp it will be."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from study.config import written
from study.diagnosis.run import Run
from study.plan import Factor, strata
from study.verdict import expected_precision

NAME = "diagnosed"
REPLICATES, FOLDS = 5, 3
# Settings of saved models that a study calls the same, by the part of its configuration.
SCVI = ("n_layers", "n_latent", "n_hidden", "dropout_rate", "gene_likelihood", "dispersion")
SCANVI = ("linear_classifier",)


@dataclass(frozen=True)
class SmallestStudy:
    """A study that tells the query, its size and chance apart, with the settings of the runs.

    Attributes
    ----------
    space
        Its search space, as YAML to save in search_spaces/.
    command
        What plans it.
    trainings
        How many trainings of scANVI it has; each costs what that of one run does, or less where the query is cut.
    precision
        How sharp it will be, in words.
    """

    space: str
    command: str
    trainings: int
    precision: str


def smallest_study(runs: Sequence[Run], words: Sequence[str]) -> SmallestStudy | None:
    """Return the smallest study that would tell; None if the runs do not have two queries.

    Parameters
    ----------
    runs
        Whose settings it takes: the most common ones.
    words
        Overrides that name the data.
    """
    queries = {str(run.facts["query"]) for run in runs if run.facts["query"]}
    if len(queries) < 2:
        return None
    half = max(min(int(run.facts["query_cells"]) for run in runs) // 2, 1)
    factors = (
        Factor("query", tuple(sorted(queries)), "data"),
        Factor("query_cells", (half, "all"), "data"),
    )
    space = {
        "name": NAME,
        "design": "factorial",
        "factors": {"query": {"levels": "all"}, "query_cells": {"levels": [half, "all"]}},
        "replicates": REPLICATES,
        "folds": FOLDS,
    }
    classes = max((sum(name.startswith("recall/") for name in run.facts) for run in runs), default=1)
    expected = expected_precision(factors, strata(factors), replicates=(REPLICATES,), classes=max(classes, 1))
    command = ["scanvi-study", "plan", *words, f"space={NAME}", *settings_of(runs)]
    return SmallestStudy(
        yaml.safe_dump(space, sort_keys=False, allow_unicode=True),
        shlex.join(command),
        REPLICATES * 2 * len(queries),
        expected.statement,
    )


def settings_of(runs: Sequence[Run]) -> list[str]:
    """Return the settings that most runs have, as overrides."""
    found = []
    for part, names in (("scvi", SCVI), ("scanvi", SCANVI)):
        for name in names:
            values = [run.model.settings[name] for run in runs if name in run.model.settings]
            if values:
                found.append(f"{part}.{name}={written(max(values, key=values.count))}")
        epochs = [model.epochs for run in runs if (model := getattr(run, part)) is not None and model.epochs]
        if epochs:
            found.append(f"{part}.max_epochs={max(epochs, key=epochs.count)}")
    return found
