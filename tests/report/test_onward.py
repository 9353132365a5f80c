"""Epochs grow while they matter: until the mean of all classes and the verdicts stand still."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from study.attribution.looks import Look
from study.errors import InputError
from study.report.onward import calls_for_more
from study.studies.growth import NAME, growth_of
from study.studies.looks import keep_look
from study.studies.study import Study, looked_at
from study.trials.record import Predictions
from study.trials.store import write_failure, write_result
from tests.scenes import Scene, scene


def study_of(made: Scene, root: Path) -> Study:
    config = made.config.model_copy(update={"root": root, "budget": "grow"})
    return looked_at(replace(made.study, config=config))


def finish(study: Study, made: Scene) -> None:
    """Write the results of what is called for."""
    for trial in study.plan.trials:
        cells = made.cells[trial.condition.query]
        probabilities = np.zeros((cells.n_reference, len(cells.classes)), dtype=np.float32)
        query = np.zeros(cells.n_query, dtype=np.uint16)
        predictions = Predictions(probabilities, query, np.ones(cells.n_query, dtype=np.float32), np.arange(6))
        write_result(study.config.directory, made.results[trial.key], predictions)


def made_of(levels: list[int]) -> Scene:
    """Recall is 30 points higher with 4 epochs than with any other number."""
    factors = {"query": {"levels": ["first", "second"]}, "scanvi.max_epochs": {"levels": levels}}
    return scene(factors=factors, per_class=12_000, replicates=5)


def test_epochs_that_change_nothing_are_the_last(tmp_path: Path) -> None:
    made = made_of([8, 16, 32, 64])
    study = study_of(made, tmp_path)
    assert not calls_for_more(study), "nothing is trained yet"
    assert {trial.settings.scanvi.max_epochs for trial in study.plan.trials} == {8, 16}
    assert {stage.leave for stage in study.plan.stages} == {True, False}
    finish(study, made)
    assert calls_for_more(study)
    growth = growth_of(study.config)
    assert growth is not None and growth.ended and growth.grown == 2
    assert growth.lower is not None and growth.upper is not None and -1 < growth.lower < 0 < growth.upper < 1
    assert "so it was not trained to 32, 64" in growth.words(0.25) and "is 25% of all" in growth.words(0.25)
    assert f"in {growth.replicates} replicates" in growth.words(0.25) and growth.replicates == study.plan.replicates
    wider = study.config.model_copy(update={"scvi": study.config.scvi.model_copy(update={"n_latent": 7})})
    other = growth_of(wider)
    assert other is not None and not other.ended and other.points is None, "of other settings it says nothing"
    study = looked_at(study)
    assert not any(stage.leave for stage in study.plan.stages) and not calls_for_more(study)


def test_epochs_that_matter_are_followed_by_more(tmp_path: Path) -> None:
    made = made_of([2, 4, 8])
    study = study_of(made, tmp_path)
    finish(study, made)
    assert calls_for_more(study)
    study = looked_at(study)
    assert {trial.settings.scanvi.max_epochs for trial in study.plan.trials} == {2, 4, 8}
    finish(study, made)
    assert calls_for_more(study)
    growth = growth_of(study.config)
    assert growth is not None and growth.ended and growth.points is not None and growth.points < -15
    assert "more of them may still change it" in growth.words(0.5)
    (study.config.directory / NAME).write_text("{}")
    with pytest.raises(InputError, match="does not record epochs"):
        looked_at(study)


def test_replicates_that_fail_end_a_study_that_goes_on(tmp_path: Path) -> None:
    """All trials of the later replicates failed: the earlier ones, looked at again, would call for them for ever."""
    made = scene(replicates="auto", looks=[3, 5])
    study = looked_at(replace(made.study, config=made.config.model_copy(update={"root": tmp_path})))
    finish(study, made)
    keep_look(study.config, study.plan.factors, Look(3, 0.02, 0.02, open=("something",)))
    study = looked_at(study)
    assert study.plan.replicates == 5
    for trial in study.plan.trials:
        if trial.replicate.index > 2:
            write_failure(study.config.directory, trial.key, "out of memory")
    assert not calls_for_more(study)
