"""The record of what a stage took."""

import logging
import time
from pathlib import Path

import pytest
import torch

from study.trials.timing import Stopwatch, Timing, overhead, read_timings, write_timing


def record(key: str = "a", **changes: object) -> Timing:
    values: dict[str, object] = {
        "key": key,
        "kind": "fine-tuning",
        "engine": "exact",
        "accelerator": "cpu",
        "threads": 1,
        "resident": False,
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


def test_what_is_written_is_read_and_what_is_damaged_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_timings(tmp_path) == [], "studies of before have none"
    write_timing(tmp_path, record("b", started=200.0))
    write_timing(tmp_path, record("a"))
    assert read_timings(tmp_path) == [record("a"), record("b", started=200.0)]
    path = tmp_path / "stages" / "b" / "timing.json"
    path.write_text(path.read_text().replace("150", "151"))
    with caplog.at_level(logging.WARNING):
        assert read_timings(tmp_path) == [record("a")]
    assert "damaged" in caplog.text


def test_overhead_is_all_but_training_and_evaluation_and_the_gaps_of_each_worker() -> None:
    first = record("a", started=0.0, ended=3.7)
    second = record("b", started=4.0, ended=7.7)
    other = record("c", started=50.0, ended=53.7, worker="here:2")
    assert overhead([first, second, other]) == pytest.approx((3 * 0.2 + 0.3) / 6)


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
