"""What MLflow is still to be shown: at once, or later if it refused not long ago. Nothing waits for it."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from study.tracking.store import PATIENCE, REFUSED, first_line

log = logging.getLogger(__name__)


class Queue:
    """Things to show, in order.

    Attributes
    ----------
    owed
        What is still to be shown.
    behind
        Why that was refused; empty if nothing is owed.
    """

    def __init__(self, kept_in: Path) -> None:
        """Say in a warning where results are kept, should MLflow fall behind."""
        self.owed: deque[Callable[[], None]] = deque()
        self.behind, self._again, self._kept_in = "", 0.0, kept_in

    def show(self, what: Callable[[], None]) -> None:
        """Show something now, or later if MLflow refused not long ago."""
        self.owed.append(what)
        if time.monotonic() >= self._again:
            self.catch_up()

    def catch_up(self) -> None:
        """Show what is owed, until something is refused."""
        while self.owed:
            try:
                self.owed[0]()
            except REFUSED as error:
                if not self.behind:
                    log.warning("MLflow is behind (%s); results are kept in %s", first_line(error), self._kept_in)
                self.behind, self._again = first_line(error), time.monotonic() + PATIENCE
                # The others first, next time: perhaps this alone is refused.
                self.owed.rotate(-1)
                return
            self.owed.popleft()
        self.behind = ""
