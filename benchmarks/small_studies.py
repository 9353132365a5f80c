"""Small studies trained in one process, without Ray and MLflow, for benchmarks that need many of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from study.config.composition import compose, validate
from study.config.values import dump
from study.report.analysis import Analysis, analyse
from study.report.finished import read_finished
from study.studies.study import open_study
from study.training.hardware import Hardware
from study.trials.perform import perform
from study.trials.store import kept_states


def train_and_judge(overrides: Sequence[str], factors: Mapping[str, Any], replicates: int = 3) -> Analysis:
    """Train all of a study, one stage after the other, and attribute it.

    Parameters
    ----------
    overrides
        As on the command line.
    factors
        Of the search space, replacing those of `space=`.
    """
    composed = dump(compose(list(overrides)))
    space = {**composed["space"], "factors": factors, "replicates": replicates}
    study = open_study(validate({**composed, "space": space}))
    directory = study.config.directory
    for stage in study.plan.missing(set(), kept_states(directory, study.plan)):
        perform(stage, study.cells[stage.condition.query], directory, Hardware())
    return analyse(study, read_finished(study))
