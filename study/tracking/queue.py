"""What MLflow is still to be shown: at once, or later if it refused not long ago. Nothing waits for it."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from study.tracking.database import PATIENCE
from study.tracking.store import REFUSED, reason

log = logging.getLogger(__name__)

ENDING = 60.0  # seconds that refusals may take in the end


class Queue:
    """Things to show, in order.

    Attributes
    ----------
    owed
        What is still to be shown.
    """

    def __init__(self, kept_in: Path) -> None:
        """Say in a warning where results are kept, should MLflow fall behind."""
        self.owed: deque[Callable[[], None]] = deque()
        self._why, self._again, self._kept_in = "", 0.0, kept_in

    @property
    def behind(self) -> str:
        """Why something is still owed, and how much; empty if nothing is."""
        size = len(self.owed)
        return f"{self._why}; {size} {'entry is' if size == 1 else 'entries are'} missing" if size else ""

    def show(self, what: Callable[[], None]) -> None:
        """Show something now, or later if MLflow refused not long ago."""
        self.owed.append(what)
        if time.monotonic() >= self._again:
            self.catch_up()

    def catch_up(self) -> None:
        """Show what is owed, until something is refused."""
        while self.owed and self._shown():
            pass

    def finish(self) -> None:
        """Show what is owed, each once, whatever is refused; but a store that is gone is not asked again and again."""
        spent = 0.0
        for _ in range(len(self.owed)):
            began = time.monotonic()
            if not self._shown():
                spent += time.monotonic() - began
                if spent > ENDING:
                    return

    def _shown(self) -> bool:
        """Show what comes first. If it is refused it comes last, next time: perhaps it alone is."""
        try:
            self.owed[0]()
        except REFUSED as error:
            if not self._why:
                log.warning("MLflow is behind (%s); results are kept in %s", reason(error), self._kept_in)
            self._why, self._again = reason(error), time.monotonic() + PATIENCE
            self.owed.rotate(-1)
            return False
        self.owed.popleft()
        if not self.owed:
            self._why = ""
        return True
