"""Why a stage failed, from the worker where it did to the driver."""

from __future__ import annotations

import json
import re
from typing import Any

LONGEST = 400  # characters of a reason


class Failed(Exception):
    """Why a stage failed, as JSON on a line: of what a worker raises, Tune keeps a text for everybody to read.

    Where a text has no such line, the stage itself did not fail: its worker or node was lost, or was killed for memory
    by Ray or the operating system.
    """

    @classmethod
    def because(cls, reason: str, unwritten: bool = False) -> Failed:
        """Return the exception; not in the constructor, which is called again when it is unpickled."""
        return cls(json.dumps({"reason": reason, "unwritten": unwritten}))

    @staticmethod
    def read(text: str) -> dict[str, Any] | None:
        """Return what a text says of the failure of a stage; None if nothing."""
        lines = re.findall(r"failure\.Failed: (\{.*\})\s*$", text, re.MULTILINE)
        found: dict[str, Any] | None = json.loads(lines[-1]) if lines else None
        return found


def reason_of(error: Exception) -> str:
    """Return what kind of error it is and what it says."""
    return f"{type(error).__name__}: {short(str(error))}"


def short(text: str) -> str:
    """Return a text on one line, cut where it gets too long."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
