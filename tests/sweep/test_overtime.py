"""A stage that hangs is ended, whatever it hangs in."""

import subprocess
import sys
from pathlib import Path

from study.sweep.overtime import limited, overtime_reason
from tests.made import HANGS


def test_what_hangs_is_ended_and_says_where(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    ended = subprocess.run([sys.executable, "-c", HANGS, str(trace)], check=False, timeout=60)
    assert ended.returncode == 1
    said = overtime_reason(0.005, trace)
    assert said is not None
    assert "resources.stage_minutes=0.005" in said
    assert "match" in said


def test_what_ends_in_time_leaves_nothing(tmp_path: Path) -> None:
    with limited(1, tmp_path / "trace"):
        assert overtime_reason(1, tmp_path / "trace") is None, "it is still running"
    assert not list(tmp_path.iterdir())
