"""What is known of a run from its folder: while it goes on, after it ended, and from another node."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from study.config.composition import compose
from study.config.study import StudyConfig
from study.errors import InputError
from study.sweep.status import Account, alone, holder, kept_account, status_of

FIRST = Account(done=2, failed=0, total=6, stages_total=4, steps_total=100)
HALF = replace(FIRST, done=4, stages_done=2, stages_running=1, steps_done=50, classes="best B 0.93, worst T 0.41")


@pytest.fixture
def config(tmp_path: Path) -> StudyConfig:
    found = compose([f"root={tmp_path}", "name=one"])
    found.directory.mkdir()
    return found


def test_a_run_is_followed_from_its_first_account_to_its_end(config: StudyConfig) -> None:
    with pytest.raises(InputError, match="no run of study 'one'"):
        status_of(config)
    with alone(config):
        with kept_account(config.directory, "scanvi-study run name=one", FIRST) as tell:
            tell(HALF)
            found = status_of(config)
            assert found.state == "running"
            assert found.run.process == os.getpid()
            facts = json.loads(json.dumps(found.facts()))
            assert (facts["done"], facts["stages_running"], facts["steps_done"]) == (4, 1, 50)
            # Half of the steps are done: the other half takes as long.
            assert facts["seconds_left"] <= facts["seconds_passed"]
            assert f"kill -INT {os.getpid()}" in "\n".join(found.lines())
            assert "Recall: best B 0.93, worst T 0.41, on held-out cells" in found.lines()
            tell(replace(HALF, done=6, stages_done=4, stages_running=0))
        assert status_of(config).state == "busy", "its lock is held, but the run is over"
    assert status_of(config).state == "done"
    assert status_of(config).left is None


@pytest.mark.parametrize(
    ("last", "state"), [(HALF, "stopped"), (replace(HALF, done=4, failed=2), "failed"), (replace(HALF, done=6), "done")]
)
def test_how_a_run_ended_follows_from_its_last_account(config: StudyConfig, last: Account, state: str) -> None:
    with kept_account(config.directory, "scanvi-study run name=one", FIRST) as tell:
        tell(last)
    assert status_of(config).state == state
    # A run that is not done names the command that goes on.
    assert ("scanvi-study run name=one" in "\n".join(status_of(config).lines())) == (state != "done")


def test_a_run_that_was_killed_is_known_on_its_host_alone(config: StudyConfig) -> None:
    with pytest.raises(RuntimeError), kept_account(config.directory, "scanvi-study run", FIRST) as tell:
        tell(HALF)
        raise RuntimeError
    assert status_of(config).state == "stopped"
    path = config.directory / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "another-node"}))
    found = status_of(config)
    assert found.state == "unknown"
    assert "ask on another-node" in "\n".join(found.lines())


def test_asking_who_holds_a_study_does_not_keep_a_run_from_it(config: StudyConfig) -> None:
    with alone(config):
        assert f"process {os.getpid()} on" in (holder(config.directory) or "")
        with pytest.raises(InputError, match="is being run already"), alone(config):
            pass
    assert holder(config.directory) is None
    with alone(config):
        pass


def test_a_damaged_record_is_said(config: StudyConfig, caplog: pytest.LogCaptureFixture) -> None:
    (config.directory / "run.json").write_text('{"process": 1')
    with pytest.raises(InputError, match="no run of study"):
        status_of(config)
    assert "run.json is damaged" in caplog.text
