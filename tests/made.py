"""What several test files make or undo: small studies, results and names."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import yaml

from study.attribution.attribute import attribute_study
from study.attribution.findings import Attribution
from study.cells.prepared import Cells
from study.cells.sources import query_names
from study.cells.twins import prepare
from study.config.composition import compose, validate
from study.config.study import StudyConfig
from study.config.values import Level, dump
from study.plan.factors import Factor, Stratum
from study.plan.tree import Plan, PlannedTrial, plan_study
from study.training.hardware import Hardware
from study.trials.record import Result
from study.trials.timing import Timing


def unslug(text: str) -> str:
    """Return the class name that `slug` made a text of."""
    return re.sub(r":([0-9A-F]+):", lambda found: chr(int(found[1], 16)), text)


KEY = "a" * 64
# The cells with ten fine labels, and a study half the size of the default one.
FINE = ["data=pbmc68k-fine", "name=pbmc68k-default", "space.replicates=3", "space.folds=3", "space.controls=[]"]


@cache
def pbmc() -> dict[str, Cells]:
    with tempfile.TemporaryDirectory() as folder:
        return prepare(compose(FINE).data, ("asis", "shallow", "none"), Path(folder))


def study_of(factors: str | None = None, *overrides: str, **space: object) -> StudyConfig:
    values = dump(compose([*FINE, *overrides]))
    if factors is not None:
        values["space"]["factors"] = yaml.safe_load(factors)
    values["space"] |= space
    return validate(values)


def planned(factors: str | None = None, *overrides: str, **space: object) -> Plan:
    config = study_of(factors, *overrides, **space)
    return plan_study(config, pbmc(), query_names(config.data))


def keys(made: Plan) -> list[str]:
    return [trial.key for trial in made.trials]


def some_result(**changes: object) -> Result:
    values: dict[str, object] = {
        "key": KEY,
        "settings": {"scvi": {"n_latent": 4}},
        "query": "asis",
        "query_cells": 3,
        "seed": 0,
        "fold": 0,
        "folds": 3,
        "digest": "d",
        "epochs": {"pretraining": 2},
        "classes": ["a", "b"],
        "truth_classes": ["a", "b"],
        "metrics": {"heldout/recall/a": 1 / 3},
        "confusion": {"heldout": [[1, 2], [0, 3]]},
        "curves": {"train_loss": [1.5]},
        "probes": {"steps": 4},
        "left_out": [],
        "seconds": 1.0,
    }
    return Result(**{**values, **changes})


def cells_of(labels: list[int], n_query: int) -> Cells:
    n = len(labels) + n_query
    classes = tuple(f"c{code}" for code in range(max(labels) + 1))
    return Cells(
        counts=sp.csr_matrix(np.ones((n, 2), dtype=np.float32)),
        genes=np.array(["a", "b"]),
        classes=classes,
        labels=np.array(labels, dtype=np.int32),
        truth=np.full(n_query, -1, dtype=np.int32),
        truth_classes=classes,
        batches=("one",),
        batch=np.zeros(n, dtype=np.int32),
        names=np.array([f"cell{i}" for i in range(n)]),
        origin=np.full(n_query, -1),
    )


HANGS = """
import re, sys
from pathlib import Path
from study.sweep.overtime import limited
def hang():
    re.match("(a+)+$", "a" * 64 + "b")  # in C, holding the lock of the interpreter
with limited(0.005, Path(sys.argv[1])):
    hang()
"""


def timing_of(key: str = "a", **changes: object) -> Timing:
    values: dict[str, object] = {
        "key": key,
        "kind": "fine-tuning",
        "hardware": Hardware(),
        "cells": 700,
        "genes": 765,
        "classes": 9,
        "network": (1, 128, 128),
        "steps_per_epoch": 5,
        "epochs": 30,
        "steps": 150,
        "trials": 2,
        "setup": 0.1,
        "training": 3.0,
        "evaluation": 0.5,
        "writing": 0.1,
        "reached": ((15, 1.5), (30, 3.0)),
        "seconds": 3.7,
        "started": 100.0,
        "ended": 103.7,
        "worker": "here:1",
    }
    return Timing(**{**values, **changes})  # type: ignore[arg-type]


TINY = ["scvi.n_hidden=8", "scvi.n_latent=3"]


@cache
def few_cells() -> Cells:
    with tempfile.TemporaryDirectory() as folder:
        return prepare(compose(FINE).data, ["asis"], Path(folder))["asis"].first(60)


def attribute(
    table: pd.DataFrame,
    factors: Sequence[Factor],
    strata: Sequence[Stratum],
    baselines: Mapping[str, Level] | None = None,
) -> Attribution:
    """Attribute one outcome of one class; the table needs no `outcome` and no `class_name`."""
    named = table.assign(outcome=table.get("outcome", ""), class_name=table.get("class_name", ""))
    (found,) = attribute_study(named, factors, strata, baselines).attributions
    return found


# Two queries and two epochs: four design points.
TWO_BY_TWO = "{query: {levels: [asis, shallow]}, scanvi.max_epochs: {levels: [1, 2]}}"


def with_self() -> dict[str, Cells]:
    """A stand-in of the right size: planning a pseudo-query looks at nothing else."""
    return {**pbmc(), "self": pbmc()["shallow"]}


def controlled(controls: list[str], factors: str = TWO_BY_TWO, *overrides: str, **space: object) -> Plan:
    config = study_of(factors, *overrides, controls=controls, **space)
    return plan_study(config, with_self(), query_names(config.data))


def controls_named(made: Plan, control: str) -> list[PlannedTrial]:
    return [trial for trial in made.controls if trial.control == control]
