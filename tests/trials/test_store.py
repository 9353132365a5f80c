"""Results on disk: whole or missing, and known to be what was written."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from study import files
from study.errors import WritingError
from study.trials.record import Predictions
from study.trials.store import (
    kept_states,
    read_all,
    read_failures,
    read_predictions,
    read_result,
    read_state,
    write_failure,
    write_result,
    write_state,
)
from tests.made import KEY, planned, some_result


def some_predictions() -> Predictions:
    return Predictions(
        probabilities=np.random.default_rng(0).random((4, 2)).astype(np.float32),
        query_label=np.array([0, 1, 1], dtype=np.uint16),
        query_confidence=np.array([0.5, 0.6, 0.7], dtype=np.float32),
        held_out=np.array([1, 3]),
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    result, predictions = some_result(), some_predictions()
    write_result(tmp_path, result, predictions)
    found = read_result(tmp_path, KEY)
    assert found is not None
    assert (found.metrics, found.confusion, found.finished) == (result.metrics, result.confusion, result.finished)
    back = read_predictions(tmp_path, KEY)
    for name, array in vars(predictions).items():
        assert np.array_equal(getattr(back, name), array)
    assert sorted(path.name for path in (tmp_path / "trials").iterdir()) == [f"{KEY}.json", f"{KEY}.npz"]


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_a_flipped_byte_makes_a_trial_missing_and_is_said(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_result(tmp_path, some_result(), some_predictions())
    path = tmp_path / "trials" / f"{KEY}.{suffix}"
    content = bytearray(path.read_bytes())
    for place in range(0, len(content), max(1, len(content) // 50)):
        content[place] ^= 1
        path.write_bytes(content)
        assert read_result(tmp_path, KEY) is None, f"byte {place}"
        content[place] ^= 1
    assert "damaged" in caplog.text
    path.write_bytes(content)
    assert read_result(tmp_path, KEY) is not None


def test_predictions_without_a_result_are_no_result(tmp_path: Path) -> None:
    write_result(tmp_path, some_result(), some_predictions())
    (tmp_path / "trials" / f"{KEY}.json").unlink()
    assert read_all(tmp_path, [KEY]) == {}


def test_weights_are_checked(tmp_path: Path) -> None:
    state = {"layer": torch.arange(6.0)}
    write_state(tmp_path, "stage", 3, state)
    assert torch.equal(read_state(tmp_path, "stage", 3)["layer"], state["layer"])
    path = tmp_path / "stages" / "stage" / "3.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        read_state(tmp_path, "stage", 3)
    assert not path.with_suffix(".sha256").exists(), "so the next run trains it again"


@pytest.mark.parametrize("broken", ["flipped", "missing"])
def test_damaged_weights_are_none(tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture) -> None:
    plan = planned("{scanvi.max_epochs: {levels: [1, 2]}}", replicates=1)
    (stage,) = [stage for stage in plan.stages if stage.keep]
    (epoch,) = stage.keep
    write_state(tmp_path, stage.key, epoch, {"layer": torch.arange(6.0)})
    assert kept_states(tmp_path, plan) == {(stage.key, epoch)}
    path = tmp_path / "stages" / stage.key / f"{epoch}.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content) if broken == "flipped" else path.unlink()
    assert kept_states(tmp_path, plan) == set()
    assert "damaged" in caplog.text


def test_what_cannot_be_written_is_explained_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "trials").write_text("a file where a folder belongs")
    with pytest.raises(
        WritingError, match=r"trials/.* cannot be written \(File exists\)\. .* Name another place"
    ) as raised:
        write_result(tmp_path, some_result(), some_predictions())
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["trials"]


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from study import files\n"
        "with files.writing(Path(sys.argv[1]) / 'trials' / 'x.json') as aside:\n"
        "    aside.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    write_result(tmp_path, some_result(), some_predictions())
    assert len(list((tmp_path / "trials").iterdir())) == 3
    files.tidy(tmp_path, untouched=3600)
    assert len(list((tmp_path / "trials").iterdir())) == 3, "it may still be at work"
    files.tidy(tmp_path)
    assert sorted(path.suffix for path in (tmp_path / "trials").iterdir()) == [".json", ".npz"]
    assert read_result(tmp_path, KEY) is not None


def test_a_success_forgets_a_failure(tmp_path: Path) -> None:
    write_failure(tmp_path, KEY, "the loss was nan")
    assert read_failures(tmp_path, [KEY, "b" * 64]) == {KEY: "the loss was nan"}
    write_result(tmp_path, some_result(), some_predictions())
    assert read_failures(tmp_path, [KEY]) == {}
