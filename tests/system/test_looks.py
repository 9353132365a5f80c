"""Studies that decide how far they go: they look when it is due, train on for real, and resume where they were."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from study.config.composition import compose
from study.plan.split import split_cells
from study.studies.growth import growth_of
from study.studies.looks import taken_looks
from study.studies.study import Study, open_study
from study.trials.metrics import measure
from study.trials.record import Predictions, Result
from study.trials.store import read_predictions, read_result, write_result
from study.trials.timing import read_timings
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
    first, last = taken_looks(config, study.plan.factors)
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
    assert taken_looks(config, study.plan.factors) == (first, last)


GROWING = """\
name: tiny
design: factorial
factors:
  query: {levels: [asis, shallow]}
  scanvi.max_epochs: {levels: [1, 2, 4]}
replicates: 2
folds: 3
controls: []
"""


def test_epochs_that_grow_give_what_epochs_as_stated_give(
    workplace: Workplace, tiny: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two replicates leave it open whether epochs matter, so all are trained, each epoch once."""
    (workplace.folder / "search_spaces" / "tiny.yaml").write_text(GROWING)
    workplace.call("run", *tiny("budget=grow", "name=grown"))
    workplace.call("run", *tiny("name=stated"))
    monkeypatch.chdir(workplace.folder)
    grown, stated = (open_study(compose(tiny(*more))) for more in (["budget=grow", "name=grown"], ["name=stated"]))
    growth = growth_of(grown.config)
    assert growth is not None and (growth.grown, growth.ended) == (3, True)
    assert grown.plan.by_key.keys() == stated.plan.by_key.keys()
    for key in stated.plan.by_key:
        here, there = (read_predictions(one.config.directory, key) for one in (grown, stated))
        assert (here.probabilities == there.probabilities).all(), key
        one, other = (read_result(study.config.directory, key) for study in (grown, stated))
        assert one is not None and other is not None and (one.curves, one.probes) == (other.curves, other.probes)
    tuned = [one for one in read_timings(grown.config.directory) if one.kind == "fine-tuning"]
    assert [one.epochs for one in tuned] == [2] * 4, "the last two of four epochs alone were trained then"
    assert not list(grown.config.directory.rglob("*.halted*")), "nothing goes on from there any more"
    page = (grown.config.directory / "report.html").read_text()
    assert "Epochs grew to 4 of 1, 2, 4." in page
