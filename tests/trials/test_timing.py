"""The record of what a stage took."""

import json
import logging
import time
from pathlib import Path

import pytest
import torch

from study import files
from study.training.hardware import Hardware
from study.trials.timing import Stopwatch, read_timings, write_timing
from tests.made import timing_of


def test_what_is_written_is_read_and_what_is_damaged_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_timings(tmp_path) == [], "studies of before have none"
    write_timing(tmp_path, timing_of("b", started=200.0))
    write_timing(tmp_path, timing_of("a"))
    assert read_timings(tmp_path) == [timing_of("a"), timing_of("b", started=200.0)]
    path = tmp_path / "stages" / "b" / "timing.json"
    path.write_text(path.read_text().replace("150", "151"))
    with caplog.at_level(logging.WARNING):
        assert read_timings(tmp_path) == [timing_of("a")]
    assert "damaged" in caplog.text


# A record as studies hold it since there are any.
OLD = {
    "accelerator": "cuda",
    "cells": 700,
    "classes": 9,
    "ended": 103.7,
    "engine": "fast",
    "epochs": 30,
    "evaluation": 0.5,
    "genes": 765,
    "key": "old",
    "kind": "fine-tuning",
    "network": [1, 128, 128],
    "reached": [[15, 1.5], [30, 3.0]],
    "resident": True,
    "seconds": 3.7,
    "setup": 0.1,
    "started": 100.0,
    "steps": 150,
    "steps_per_epoch": 5,
    "threads": 4,
    "training": 3.0,
    "trials": 2,
    "worker": "here:1",
    "writing": 0.1,
}


def test_an_old_record_is_read_and_new_ones_are_written_alike(tmp_path: Path) -> None:
    checksum = files.sha256(json.dumps(OLD, sort_keys=True).encode())
    path = tmp_path / "stages" / "old" / "timing.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"sha256": checksum, "timing": OLD}, sort_keys=True))
    before = path.read_bytes()
    (found,) = read_timings(tmp_path)
    assert found == timing_of("old", hardware=Hardware("cuda", 4, "fast", True))
    write_timing(tmp_path, found)
    assert path.read_bytes() == before


def test_a_stopwatch_counts_each_moment_once_and_training_from_the_first_forward_on() -> None:
    watch = Stopwatch()
    network = torch.nn.Linear(2, 1)
    with watch.training():
        time.sleep(0.05)
        network(torch.zeros(1, 2))
        time.sleep(0.1)
        with watch.part("evaluation"):
            network(torch.zeros(1, 2))
            time.sleep(0.2)
    found = watch.seconds
    assert found["setup"] >= 0.05
    assert found["training"] >= 0.1
    assert found["evaluation"] >= 0.2
    assert sum(found.values()) <= watch.total, "nothing is counted twice"
