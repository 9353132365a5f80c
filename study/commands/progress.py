"""A run as it goes: a live display in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

if TYPE_CHECKING:  # only accounts are read; importing what makes them takes seconds
    from study.commands.rounds import Show
    from study.sweep import Account

QUIET_SECONDS = 5.0


@contextmanager
def progress(to: Console) -> Iterator[Show]:
    """Show a run as it goes: a live display in a terminal, else a plain line every few seconds."""
    if to.is_terminal:
        with _live(to) as show:
            yield show
        return
    last = [0.0]
    start = time.perf_counter()

    def line(account: Account) -> None:
        over = account.stages_done + account.stages_failed == account.stages_total
        if over or time.perf_counter() - last[0] >= QUIET_SECONDS:
            last[0] = time.perf_counter()
            to.print(_sentence(account, time.perf_counter() - start), markup=False, soft_wrap=True)

    yield line


@contextmanager
def _live(to: Console) -> Iterator[Show]:
    bars = Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), console=to)
    trials: TaskID = bars.add_task("trials", total=1, text="")
    stages: TaskID = bars.add_task("stages", total=1, text="")
    recall: TaskID = bars.add_task("recall", total=1, text="", visible=False)
    start = time.perf_counter()

    def show(account: Account) -> None:
        passed = time.perf_counter() - start
        failed = f", {account.failed} failed" if account.failed else ""
        bars.update(trials, total=account.total, completed=account.done, text=f"{account.done}/{account.total}{failed}")
        text = (
            f"{account.stages_done}/{account.stages_total}, {account.stages_running} running, {_time(account, passed)}"
        )
        bars.update(stages, total=account.stages_total, completed=account.stages_done, text=text)
        bars.update(
            recall,
            visible=bool(account.classes),
            total=account.total,
            completed=account.done,
            text=escape(account.classes),
        )

    with Live(bars, console=to, refresh_per_second=4):
        yield show


def _sentence(account: Account, passed: float) -> str:
    recall = f"; recall: {account.classes}" if account.classes else ""
    return (
        f"trials {account.done}/{account.total} done, {account.failed} failed; stages {account.stages_done}/"
        f"{account.stages_total} done, {account.stages_running} running; {_time(account, passed)}{recall}"
    )


def _time(account: Account, passed: float) -> str:
    """Elapsed time, and what is left at the rate of optimiser steps so far."""
    text = f"{timedelta(seconds=round(passed))} passed"
    left = account.left(passed)
    if left is not None:
        text += f", about {timedelta(seconds=round(left))} left"
    return text
