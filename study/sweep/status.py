"""How far a run is: who runs a study, what that run last told of itself, and whether it still goes on.

In the study's folder, `lock` is held by the operating system for the process that runs it; `run.json` is its last run,
written again whenever a stage starts or ends; `run.log` is what that run printed, if it was detached.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

from study import files
from study.errors import InputError

log = logging.getLogger(__name__)
State = Literal["running", "done", "failed", "stopped", "busy", "unknown"]
# `run --detach` tells the run where its output goes.
LOG = "SCANVI_STUDY_LOG"
ASKING = 0.3  # seconds that others may hold a lock who only ask who holds it


@dataclass(frozen=True)
class Account:
    """How far a run is.

    Attributes
    ----------
    done, failed, total
        Trials, those of controls included.
    stages_done, stages_running, stages_failed, stages_total
        Stages of this run.
    steps_done, steps_total
        Optimiser steps of this run.
    classes
        Which class has the highest mean held-out recall so far, and which the lowest; empty before the first trial.
    """

    done: int
    failed: int
    total: int
    stages_done: int = 0
    stages_running: int = 0
    stages_failed: int = 0
    stages_total: int = 0
    steps_done: int = 0
    steps_total: int = 0
    classes: str = ""

    def left(self, passed: float) -> float | None:
        """Return the seconds that are left at the rate of optimiser steps so far; None before the first stage."""
        return passed * (self.steps_total - self.steps_done) / self.steps_done if self.steps_done else None


@dataclass(frozen=True)
class Run:
    """The last run of a study, as it told of itself.

    Attributes
    ----------
    process, host
        Who runs it, or ran it.
    command
        What goes on where it stops.
    log
        Where its output goes; None for a run in a terminal.
    started, updated, ended
        Seconds since 1970; `ended` stays None if it is killed, or ends in an error.
    """

    process: int
    host: str
    command: str
    log: str | None
    started: float
    updated: float
    ended: float | None
    account: Account


@dataclass(frozen=True)
class Status:
    """What is known of a study's last run, from the node that asks.

    Attributes
    ----------
    state
        `running`; `done`; `failed`: all else is done; `stopped`: some is missing; `busy`: the study is held all the
        same (by a run that prepares or has just ended, or by `sync`); `unknown`: it ran on another node, and did not
        say that it ended.
    holder
        Who holds the study, as far as its lock can be seen from here.
    """

    study: str
    state: State
    holder: str | None
    run: Run

    @property
    def passed(self) -> float:
        """Seconds that the run has taken, or took."""
        return (time.time() if self.state == "running" else self.run.ended or self.run.updated) - self.run.started

    @property
    def left(self) -> float | None:
        """Seconds that are left, as far as can be told."""
        run = self.run
        left = run.account.left(run.updated - run.started) if self.state == "running" else None
        return None if left is None else max(0.0, left - (time.time() - run.updated))

    def facts(self) -> dict[str, object]:
        """Return what `status --json` prints."""
        told = {name: value for name, value in asdict(self.run).items() if name != "account"}
        times = {"seconds_passed": round(self.passed, 1), "seconds_left": self.left and round(self.left, 1)}
        who = {"study": self.study, "state": self.state, "holder": self.holder}
        return {**who, **told, **asdict(self.run.account), **times}

    def lines(self) -> list[str]:
        """Return what `status` prints."""
        run, account, left = self.run, self.run.account, self.left
        who, goes_on = f"process {run.process} on {run.host}", f"Next:   {run.command} goes on from here."
        said, then = {
            "running": (
                f"runs, as {who}",
                f"Stop:   kill -INT {run.process}, on {run.host}; what is finished is kept.",
            ),
            "done": ("is done", "Next:   scanvi-study report, export or transfer, with the same overrides."),
            "failed": ("ended, and some trials failed", f"{goes_on} The report says why they failed."),
            "stopped": ("was stopped", goes_on),
            "busy": (f"is held by {self.holder}", "It starts, ends or is synchronised; this was its last run."),
            "unknown": (
                f"ran as {who}, and did not say that it ended",
                f"Nobody holds it as seen from here; where nodes do not see each other's locks, ask on {run.host}.",
            ),
        }[self.state]
        return [
            f"Study {self.study} {said}.",
            f"Trials: {account.done} of {account.total} done, {account.failed} failed.",
            f"Stages: {account.stages_done} of {account.stages_total} in this run done, "
            f"{account.stages_running} running, {account.stages_failed} failed; "
            f"{account.steps_done:,} of {account.steps_total:,} optimiser steps.",
            *([f"Recall: {account.classes}, on held-out cells"] if account.classes else []),
            f"Time:   {_time(self.passed)} passed{'' if left is None else f', about {_time(left)} left'}; "
            f"last change {_time(time.time() - run.updated)} ago.",
            *([f"Log:    {run.log}"] if run.log else []),
            then,
        ]


def status_of(directory: Path) -> Status:
    """Return what is known of the last run of a study, from its folder, which is called like it.

    Raises
    ------
    InputError
        If there was none.
    """
    run, who = read_run(directory), holder(directory)
    if run is None:
        others = f"It is held by {who}." if who else "Run it first, with the same overrides: scanvi-study run"
        raise InputError(f"no run of study {directory.name!r} is recorded in {directory}. {others}")
    return Status(directory.name, _state(run, who), who, run)


def _state(run: Run, who: str | None) -> State:
    account = run.account
    if who is not None:
        return "running" if run.ended is None and who.startswith(_name(run.process, run.host)) else "busy"
    if run.ended is None and run.host != os.uname().nodename:
        return "unknown"
    if account.done == account.total:
        return "done"
    return "failed" if run.ended is not None and account.done + account.failed == account.total else "stopped"


@contextmanager
def kept_account(directory: Path, command: str, account: Account) -> Iterator[Callable[[Account], None]]:
    """Keep the account of this process's run in the study's folder; on leaving without an error, that it ended.

    Yields
    ------
    What to call with each new account. It raises `WritingError` if that cannot be written.
    """
    now = time.time()
    run = Run(os.getpid(), os.uname().nodename, command, os.environ.get(LOG), now, now, None, account)

    def tell(account: Account) -> None:
        nonlocal run
        run = replace(run, account=account, updated=time.time())
        _write(directory, run)

    tell(account)
    yield tell
    _write(directory, replace(run, ended=time.time()))


def _write(directory: Path, run: Run) -> None:
    """Whole or not there, but not flushed: it is written often, and tells nothing that results do not."""
    path = directory / "run.json"
    aside = path.with_name(f".run{files.ASIDE}.json")
    with files.explained(path):
        aside.write_text(json.dumps(asdict(run)))
        aside.replace(path)


def read_run(directory: Path) -> Run | None:
    """Return the last run of the study in a folder; None if there was none, or its record is damaged."""
    path = directory / "run.json"
    try:
        values = json.loads(path.read_bytes())
        return Run(**{**values, "account": Account(**values["account"])})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s is damaged (%s)", path, error)
        return None


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold the lock of the study in a folder; the operating system frees it however the process ends.

    Raises
    ------
    InputError
        If another process holds it.
    """
    path = directory / "lock"
    new = not path.exists()
    with files.explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    with file:
        until = time.monotonic() + ASKING
        while not _locked(file.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > until:
                file.seek(0)
                raise InputError(
                    f"study {directory.name!r} is being run already, by {file.read().strip() or 'another process'}. "
                    "Wait for it, or give this one another name with 'name=...'."
                )
            time.sleep(ASKING / 10)
        with files.explained(path):
            file.truncate(0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            file.write(f"{_name(os.getpid(), os.uname().nodename)}since {since}")
            file.flush()
        try:
            yield
        except InputError:
            if new:
                path.unlink()
            raise


def holder(directory: Path) -> str | None:
    """Return who holds the lock of the study in a folder; None if nobody does, as seen from here."""
    try:
        with (directory / "lock").open() as file:
            return None if _locked(file.fileno(), fcntl.LOCK_SH) else file.read().strip() or "another process"
    except FileNotFoundError:
        return None


def _locked(file: int, how: int) -> bool:
    """Lock an open file if nobody else holds it; closing it frees it."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _name(process: int, host: str) -> str:
    return f"process {process} on {host}, "


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
