"""Stages that train as one network: each has what it would have alone, and fails for itself."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from study.training.hardware import Hardware
from study.training.snapshot import TrainingError
from study.trials.perform import perform
from study.trials.store import read_all, read_predictions
from study.trials.timing import read_timings
from study.trials.together import perform_together
from tests.made import TINY, pbmc, planned

GPU = Hardware(engine="gpu")
FACTORS = "{scanvi.classification_ratio: {levels: [50, 1.0e+39]}, scanvi.max_epochs: {levels: [1, 2]}}"


def test_each_stage_of_a_group_is_as_if_alone_and_fails_alone(tmp_path: Path) -> None:
    """Of a loss that is not finite and of damaged weights fail those that have them."""
    cells, group, alone = pbmc()["asis"], tmp_path / "group", tmp_path / "alone"
    made = planned(FACTORS, *TINY, "resources.engine=gpu", "scvi.max_epochs=2", "query_cells=60", replicates=3)
    roots = [one for one in made.stages if one.parent is None]
    others = [one for one in made.stages if one.parent is not None][::-1]
    assert [len({one.likeness for one in some}) for some in (roots, others)] == [1, 1]
    assert perform_together(roots, cells, group, GPU) == {}
    shutil.copytree(group, alone)
    next(group.glob(f"stages/{roots[2].key}/*.pt")).write_bytes(b"no weights")

    failed = perform_together(others, cells, group, GPU)

    damaged = [one for one in others if one.parent == roots[2].key]
    infinite = [one for one in others if one.settings.scanvi.classification_ratio > 50]
    assert failed.keys() == {one.key for one in (*damaged, *infinite)}
    assert all(isinstance(failed[one.key], ValueError | FileNotFoundError) for one in damaged)
    assert all(isinstance(failed[one.key], TrainingError) for one in infinite if one not in damaged)
    whole = [one for one in others if one.key not in failed]
    with pytest.raises(TrainingError, match="the training loss is nan in epoch 1"):
        perform(infinite[0], cells, alone, GPU)
    for one in whole:
        perform(one, cells, alone, GPU)
    keys = [key for one in whole for key in one.trials.values()]
    together, apart = (
        read_all(folder, [key for one in others for key in one.trials.values()]) for folder in (group, alone)
    )
    assert len(keys) == 4 and set(keys) == set(together) == set(apart)
    for key in keys:
        ours, theirs = (read_predictions(folder, key).probabilities for folder in (group, alone))
        assert np.abs(ours - theirs).max() < 1e-4
        assert together[key].curves.keys() == apart[key].curves.keys()
        assert together[key].curves["train_loss"] == pytest.approx(apart[key].curves["train_loss"], rel=1e-4)
        assert together[key].probes.keys() == apart[key].probes.keys()
        assert together[key].epochs == apart[key].epochs and together[key].seed == apart[key].seed
    of_seeds = [read_predictions(group, one.trials[2]).probabilities for one in whole]
    assert np.abs(of_seeds[0] - of_seeds[1]).max() > 1e-2
    records = [one for one in read_timings(group) if one.kind == "fine-tuning"]
    assert {one.key for one in records} == {one.key for one in whole}
    for one in records:
        assert [epoch for epoch, _ in one.reached] == [1, 2] and 0 < one.reached[0][1] < one.training < one.seconds
