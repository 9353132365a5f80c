"""What is finished is read as it lies on disk, and whole replicates are told from begun ones."""

from pathlib import Path

import pytest

from study.errors import InputError
from study.report.finished import of_whole_replicates, read_finished, read_some, whole_results
from study.trials.store import write_failure
from tests.scenes import on_disk


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
