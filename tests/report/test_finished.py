"""What is finished is read as it lies on disk, and whole replicates are told from begun ones."""

from pathlib import Path

import numpy as np
import pytest

from study.errors import InputError
from study.report.finished import of_whole_replicates, read_finished, read_some, whole_results
from study.studies.study import Study
from study.trials.record import Predictions
from study.trials.store import write_failure, write_result
from tests.scenes import scene


def on_disk(root: Path, replicates: int = 3, but: int = 0) -> Study:
    """Write the results of a made-up study, all but the last ones."""
    made = scene(replicates=replicates)
    study = Study(made.config.model_copy(update={"root": root}), made.study.queries, made.cells, made.plan)
    for trial in study.plan.trials[: len(study.plan.trials) - but]:
        cells = made.cells[trial.condition.query]
        random = np.random.default_rng(int(trial.key[:8], 16))
        probabilities = random.dirichlet(np.ones(len(cells.classes)), cells.n_reference).astype(np.float32)
        query = np.zeros(cells.n_query, dtype=np.uint16)
        predictions = Predictions(probabilities, query, np.ones(cells.n_query, dtype=np.float32), np.arange(6))
        write_result(study.config.directory, made.results[trial.key], predictions)
    return study


def test_what_is_on_disk_is_read(tmp_path: Path) -> None:
    study = on_disk(tmp_path, but=2)
    *_, failed, waiting = study.plan.trials
    write_failure(study.config.directory, failed.key, "out of memory")
    done = read_finished(study)
    assert list(done.results) == [trial.key for trial in study.plan.trials[:-2]]
    assert done.beside == {} and done.failures == done.failures_of(study.plan) == {failed.key: "out of memory"}
    assert read_some(study) == done
    begun = of_whole_replicates(study.plan, done.results, done.failures)
    assert {study.plan.by_key[key].replicate.index for key in begun} == {0, 1}
    ended = of_whole_replicates(study.plan, done.results, done.failures | {waiting.key: "too long"})
    assert ended == done.results, "a replicate in which nothing is left to train is whole, failed or not"
    assert whole_results(study) == begun


def test_nothing_finished_is_refused(tmp_path: Path) -> None:
    study = on_disk(tmp_path, replicates=1, but=8)
    with pytest.raises(InputError, match=r"no trial of study .* is finished"):
        read_some(study)
    with pytest.raises(InputError, match=r"no whole replicate yet \(0 of 8 trials"):
        whole_results(study)
