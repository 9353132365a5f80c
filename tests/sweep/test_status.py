"""What is known of a run from its folder: while it goes on, after it ended, and from another node."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from study.errors import InputError
from study.sweep.status import Account, Run, Status, alone, holder, kept_account, status_of

FIRST = Account(done=2, failed=0, total=6, stages_total=4, steps_total=100)
HALF = replace(FIRST, done=4, stages_done=2, stages_running=1, steps_done=50, classes="best B 0.93, worst T 0.41")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a study that is called `one`."""
    found = tmp_path / "one"
    found.mkdir()
    return found


def test_a_run_is_followed_from_its_first_account_to_its_end(folder: Path) -> None:
    with pytest.raises(InputError, match="no run of study 'one'"):
        status_of(folder)
    with alone(folder):
        with kept_account(folder, "scanvi-study run name=one", FIRST) as tell:
            tell(HALF)
            found = status_of(folder)
            assert found.state == "running"
            assert found.run.process == os.getpid()
            facts = json.loads(json.dumps(found.facts()))
            assert (facts["done"], facts["stages_running"], facts["steps_done"]) == (4, 1, 50)
            # Half of the steps are done: the other half takes as long.
            assert facts["seconds_left"] <= facts["seconds_passed"]
            assert f"kill -INT {os.getpid()}" in "\n".join(found.lines())
            assert "Recall: best B 0.93, worst T 0.41, on held-out cells" in found.lines()
            tell(replace(HALF, done=6, stages_done=4, stages_running=0))
        assert status_of(folder).state == "busy", "its lock is held, but the run is over"
    assert status_of(folder).state == "done"
    assert status_of(folder).left is None


@pytest.mark.parametrize(
    ("last", "state"), [(HALF, "stopped"), (replace(HALF, done=4, failed=2), "failed"), (replace(HALF, done=6), "done")]
)
def test_how_a_run_ended_follows_from_its_last_account(folder: Path, last: Account, state: str) -> None:
    with kept_account(folder, "scanvi-study run name=one", FIRST) as tell:
        tell(last)
    assert status_of(folder).state == state
    # A run that is not done names the command that goes on.
    assert ("scanvi-study run name=one" in "\n".join(status_of(folder).lines())) == (state != "done")


def test_a_run_that_was_killed_is_known_on_its_host_alone(folder: Path) -> None:
    with pytest.raises(RuntimeError), kept_account(folder, "scanvi-study run", FIRST) as tell:
        tell(HALF)
        raise RuntimeError
    assert status_of(folder).state == "stopped"
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "another-node"}))
    found = status_of(folder)
    assert found.state == "unknown"
    assert "ask on another-node" in "\n".join(found.lines())


def test_asking_who_holds_a_study_does_not_keep_a_run_from_it(folder: Path) -> None:
    with alone(folder):
        assert f"process {os.getpid()} on" in (holder(folder) or "")
        with pytest.raises(InputError, match="is being run already"), alone(folder):
            pass
    assert holder(folder) is None
    with alone(folder):
        pass


def test_a_damaged_record_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "run.json").write_text('{"process": 1')
    with pytest.raises(InputError, match="no run of study"):
        status_of(folder)
    assert "run.json is damaged" in caplog.text


def test_what_is_left_goes_by_the_optimiser_steps_so_far() -> None:
    """Not by stages: they differ in length."""
    assert FIRST.left(60) is None, "nothing tells before the first stage is done"
    assert HALF.left(60) == 60
    assert replace(HALF, steps_done=80).left(60) == 15
    assert replace(HALF, steps_done=100).left(60) == 0


def test_what_is_left_runs_down_between_two_accounts_and_not_below_nothing() -> None:
    now = time.time()

    def left(account: Account, updated: float, state: str = "running") -> float | None:
        run = Run(1, "here", "scanvi-study run", None, now - 100, now - updated, None, account)
        return Status("one", state, None, run).left  # type: ignore[arg-type]

    assert left(FIRST, 0) is None, "before the first stage"
    assert left(HALF, 0) == pytest.approx(100, abs=1)
    # Told 20 seconds ago, when half had taken 80.
    assert left(HALF, 20) == pytest.approx(80 - 20, abs=1)
    assert left(HALF, 60) == 0, "it takes longer than foreseen"
    assert left(HALF, 0, "stopped") is None
    assert left(replace(HALF, steps_done=100), 0, "done") is None
