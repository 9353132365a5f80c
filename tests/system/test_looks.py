"""A study that goes on until nothing is open: it looks when it is due, trains on for real, and resumes at its looks."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from study.config.composition import compose
from study.plan.split import split_cells
from study.studies.looks import taken_looks
from study.studies.study import Study, open_study
from study.trials.metrics import measure
from study.trials.record import Predictions, Result
from study.trials.store import write_result
from tests.system.conftest import Workplace

SPACE = """\
name: tiny
design: factorial
factors:
  query: {levels: [asis, shallow]}
  scanvi.max_epochs: {levels: [1, 3]}
replicates: auto
looks: [3, 4]
folds: 3
controls: []
"""


def with_results(study: Study) -> None:
    """Write results that leave open whether the query matters: it does by some points, and runs scatter by as many."""
    for trial in study.plan.trials:
        cells = study.cells[trial.condition.query]
        random = np.random.default_rng(int(trial.key[:8], 16))
        right = 0.72 + 0.12 * (trial.condition.query == "asis") + random.normal(scale=0.02)
        truth = np.concatenate([cells.labels, np.zeros(cells.n_query, dtype=int)])
        called = np.where(
            random.random(len(truth)) < right, truth, random.integers(len(cells.classes), size=len(truth))
        )
        probabilities = np.eye(len(cells.classes), dtype=np.float32)[called]
        parts = split_cells(cells, trial.replicate.fold, study.plan.folds, trial.settings.scvi.batch_size)
        result = Result.of(
            trial.key,
            {},
            trial.condition,
            trial.replicate,
            study.plan.folds,
            cells,
            "made",
            parts,
            measure(probabilities, cells, parts),
            epochs={"pretraining": 2, "fine-tuning": 3},
            curves={},
            probes={},
            seconds=1.0,
        )
        write_result(study.config.directory, result, Predictions.of(probabilities, parts))


def test_what_is_open_is_trained_on_until_the_last_look(
    workplace: Workplace, tiny: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace.folder / "search_spaces" / "tiny.yaml").write_text(SPACE)
    monkeypatch.chdir(workplace.folder)
    config = compose(tiny())
    study = open_study(config)
    with_results(study)
    assert len(study.plan.trials) == 12
    facts = json.loads(workplace.call("run", *tiny(), "--json").stdout)
    first, last = taken_looks(config.directory, study.plan.factors)
    assert first.replicates == 3 and first.open == (
        "whether query shallow instead of asis matters in the mean of all classes",
    )
    assert (last.replicates, last.open) == (4, ())
    assert facts["look"]["replicates"] == 4 and facts["look"]["level"] == pytest.approx(last.level)
    assert (facts["already"], facts["trained"], facts["waiting"]) == (12, 4, 0)
    assert [status for _, status in workplace.runs()] == ["FINISHED"] * 16

    (config.directory / "looks.json").unlink()
    again = json.loads(workplace.call("run", *tiny(), "--json").stdout)
    assert (again["already"], again["trained"]) == (16, 0), "looks that are due are taken before anything is trained"
    assert taken_looks(config.directory, study.plan.factors) == (first, last)
