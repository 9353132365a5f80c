"""The time limit of a stage: a worker that hangs is ended, and what it hung in is left for the driver to read."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from study.files import explained


@contextmanager
def limited(minutes: float | None, trace: Path) -> Iterator[None]:
    """End this process if what happens inside takes longer.

    Parameters
    ----------
    minutes
        None: no limit.
    trace
        File for the stacks of a process that is ended; gone if it ends in time.
    """
    if minutes is None:
        yield
        return
    with explained(trace):
        file = trace.open("w")
    with file:
        # A thread of C: it needs no lock of the interpreter, which whatever hangs may hold.
        faulthandler.dump_traceback_later(60 * minutes, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            trace.unlink()


def overtime_reason(minutes: float | None, trace: Path) -> str | None:
    """Return why a stage was ended, with the innermost call of its main thread; None if it was not."""
    text = trace.read_text() if trace.is_file() else ""
    if not text:
        return None
    # The main thread comes last, its innermost call first.
    calls = text.split("hread ")[-1].splitlines()[1:]
    where = calls[0].strip() if calls else "an unknown place"
    return f"took longer than resources.stage_minutes={minutes:g}; it was in {where}"
