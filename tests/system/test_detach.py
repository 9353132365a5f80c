"""A run in the background: followed, refused, stopped, and found again."""

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from tests.system.conftest import Workplace

DEADLINE = 200


def status(place: Workplace, words: list[str]) -> dict[str, Any]:
    """What `status` knows of a study."""
    return dict(json.loads(place.call("status", *words, "--json").stdout))


def test_a_detached_run_is_followed_and_stopped(workplace: Workplace, tiny: Callable[..., list[str]]) -> None:
    folder = workplace.folder / "studies" / "pbmc68k-tiny"
    # So many trials that those calls end, even slowly, long before they do.
    words, trials = tiny("space.replicates=20"), 160
    started = json.loads(workplace.call("run", "--detach", "--json", *words).stdout)
    process = started["process"]
    try:
        # The call that started it is over, with its process group, and what it started goes on in a session of its own.
        assert os.getsid(process) == process
        assert started["log"] == str(folder / "run.log")
        second = workplace.call("run", "--detach", *words, expect=2)
        assert f"process {process}" in second.stderr
        assert "Traceback" not in second.stderr
        until = time.monotonic() + DEADLINE
        while not list(folder.glob("trials/*.json")):
            assert time.monotonic() < until, (folder / "run.log").read_text()
            time.sleep(0.05)
        running = status(workplace, words)
        assert (running["state"], running["process"], running["total"]) == ("running", process, trials)
        assert running["holder"].startswith(f"process {process} on ")
        os.kill(process, signal.SIGINT)
        # It is over before it lets go of the study: Ray ends in between.
        while (stopped := status(workplace, words))["state"] in ("running", "busy"):
            assert time.monotonic() < until, (folder / "run.log").read_text()
    finally:
        end(process)
    assert stopped["state"] == "stopped", (folder / "run.log").read_text()
    assert stopped["done"] == len(list(folder.glob("trials/*.json")))
    assert 0 < stopped["done"] < trials
    assert stopped["holder"] is None
    assert "not yet trained" in (folder / "run.log").read_text()
    said = workplace.call("status", *words).stdout
    assert f"scanvi-study run {' '.join(words)} goes on from here" in said.replace("\n", " ")
    assert not list(folder.glob(".run*")), "a log or record was left half written"


def end(process: int) -> None:
    """End a detached run that a failed test left, and what it started."""
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_a_detached_run_is_refused_as_any_other(workplace: Workplace, tiny: Callable[..., list[str]]) -> None:
    # One that the configuration refuses, and one that is found when the cells have been prepared.
    for words, expected in ((tiny("scvi.max_epoch=3"), "max_epochs"), (tiny("query_cells=1000"), "350")):
        said = workplace.call("run", "--detach", *words, expect=2).stderr
        assert said.startswith("scanvi-study: ")
        assert expected in said
        assert "Traceback" not in said
        assert not (workplace.folder / "studies").exists()


def test_the_status_of_a_finished_study(finished: Workplace, tiny: Callable[..., list[str]]) -> None:
    found = status(finished, tiny())
    assert (found["state"], found["done"], found["failed"], found["holder"]) == ("done", 16, 0, None)
    assert found["stages_done"] == found["stages_total"]
    assert found["steps_done"] == found["steps_total"]
