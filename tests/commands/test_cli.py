"""How commands end."""

import os
import signal
import subprocess
import sys
from pathlib import Path


def test_ctrl_c_is_one_message_and_130(tmp_path: Path) -> None:
    pipe = tmp_path / "best.yaml"
    os.mkfifo(pipe)
    command = [sys.executable, "-P", "-m", "study", "transfer", "--config", str(pipe)]

    def heard() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell lets what it starts in the background ignore Ctrl-C

    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as process:
        with pipe.open("w"):  # waits until the command reads from it
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.startswith("scanvi-study: interrupted; what is finished is kept.")
    assert said.count("\n") == 1
