"""A run in the background, in a session of its own: it goes on when the terminal is closed."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import typer

from study.commands.terminal import console, print_json, show_status
from study.config import StudyConfig
from study.errors import InputError
from study.files import ASIDE, explained
from study.sweep import LOG, read_run, status_of


def start_detached(config: StudyConfig, overrides: list[str], as_json: bool) -> None:
    """Start a run in the background; show how far it is, or what it said if it is over already."""
    code = start_run(config, overrides)
    to = console(as_json)
    if code is not None:
        to.print((config.directory / "run.log").read_text(), markup=False)
    if code:
        raise typer.Exit(code)
    found = status_of(config.directory)
    show_status(to, found)
    print_json(as_json, found.facts())


def start_run(config: StudyConfig, overrides: Sequence[str]) -> int | None:
    """Start `scanvi-study run` in the background, and wait until it trains.

    What it prints goes to `run.log` in the study's folder. What it refuses is refused here, and nothing is left of it.

    Parameters
    ----------
    overrides
        Those that `config` is composed of.

    Returns
    -------
    None once it trains; its exit code if it ended before, which it does where nothing is missing.

    Raises
    ------
    InputError
        If the run refuses what it is given, with its message.
    WritingError
        If the log cannot be written.
    """
    directory = config.directory
    new = [folder for folder in (directory, directory.parent) if not folder.exists()]
    aside = directory / f".run.{secrets.token_hex(4)}{ASIDE}.log"
    with explained(aside):
        directory.mkdir(parents=True, exist_ok=True)
        file = aside.open("w")
    with file:
        process = _started(overrides, directory / "run.log", file.fileno())
    try:
        code = _wait(process, directory)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        code = process.wait()
    if code != 2:
        aside.replace(directory / "run.log")
        return code
    said = aside.read_text()
    aside.unlink()
    for folder in new:
        if not any(folder.iterdir()):
            folder.rmdir()
    before, _, message = said.rpartition("scanvi-study: ")
    print(before, end="", file=sys.stderr)
    raise InputError(message.strip())


def _started(overrides: Sequence[str], log: Path, output: int) -> subprocess.Popen[bytes]:
    # A shell that starts this in its own background may have it ignore what `kill -INT` sends.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        # -P: a folder here that happens to be called `study` is not the package.
        [sys.executable, "-P", "-m", "study", "run", *overrides],
        env={**os.environ, LOG: str(log)},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def _wait(process: subprocess.Popen[bytes], directory: Path) -> int | None:
    """Return None once a process trains, or its exit code."""
    since = time.time()
    while process.poll() is None:
        run = read_run(directory)
        if run and run.process == process.pid and run.started >= since:
            return None
        time.sleep(0.1)
    return process.returncode
