"""A study whose stages train in groups (`resources.engine=gpu`): each trial is its own all the same."""

import os
import signal
import time

import numpy as np
import pytest

from study.config.composition import compose
from study.studies.study import open_study
from study.training.hardware import Hardware
from study.trials.perform import perform
from study.trials.store import read_all, read_predictions, read_result
from study.trials.timing import read_timings
from tests.system.conftest import Workplace

# Half of the fine-tunings diverge at once.
SPACE = """
name: grouped
design: factorial
factors:
  scanvi.classification_ratio: {levels: [50, 1.0e+39]}
  scanvi.n_samples_per_label: {levels: [5, all]}
  scanvi.max_epochs: {levels: [1, 40]}
replicates: 2
folds: 3
controls: []
"""
SMALL = ["space=grouped", "scvi.max_epochs=2", "scvi.n_hidden=16", "scvi.n_latent=4", "query_cells=100"]
WORDS = [*SMALL, "resources.engine=gpu", "resources.concurrent=1"]


def test_a_killed_study_of_groups_resumes_and_its_trials_are_as_if_trained_alone(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace.folder / "search_spaces" / "grouped.yaml").write_text(SPACE)
    process = workplace.start("run", *WORDS)
    folder = workplace.folder / "studies" / "pbmc68k-grouped"
    deadline = time.monotonic() + 200
    while not list((folder / "trials").glob("*.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no trial was finished in time"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=120)
    killed = [key.stem for key in (folder / "trials").glob("*.json")]
    assert 1 <= len(killed) < 8, "it was killed within a group"

    said = workplace.call("run", *WORDS, expect=1)

    assert "the training loss is nan in epoch 1" in " ".join(said.stderr.split() + said.stdout.split())
    done = {path.stem: read_result(folder, path.stem) for path in (folder / "trials").glob("*.json")}
    assert {one.settings["scanvi"]["classification_ratio"] for one in done.values() if one} == {50} and len(done) == 8
    runs = workplace.runs()
    assert len(dict(runs)) == len(runs) == 16, "one run of each trial"
    assert {key for key, status in runs if status == "FINISHED"} == done.keys()
    assert [status for _, status in runs].count("FAILED") == 8
    started = [(one.started, one.worker) for one in read_timings(folder) if one.kind == "fine-tuning"]
    assert len(set(started)) < len(started) == 4, "some trained as one"

    monkeypatch.chdir(workplace.folder)
    study = open_study(compose([*WORDS, "name=alone"]))
    for stage in study.plan.stages:
        if stage.settings.scanvi.classification_ratio == 50:
            perform(stage, study.cells[stage.condition.query], study.config.directory, Hardware(engine="gpu"))
    alone = read_all(study.config.directory, done)
    assert alone.keys() == done.keys()
    for key in done:
        ours, theirs = (read_predictions(where, key).probabilities for where in (folder, study.config.directory))
        assert np.abs(ours - theirs).max() < 1e-3
