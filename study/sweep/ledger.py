"""The account of a sweep: which stages wait, run, are done, failed, or are blocked by a failed parent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from study.plan import Stage, in_order, next_ready


@dataclass
class Tree:
    """Which stages wait, run, are done, failed, or are blocked by a failed parent.

    Attributes
    ----------
    grouped
        Whether like stages train as one.
    workers
        How many at once.
    unwritten
        What could not be written, if that ended the sweep; its stage waits.
    """

    stages: Sequence[Stage]
    grouped: bool = False
    workers: int = 1
    state: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    unwritten: str = ""

    def __post_init__(self) -> None:
        self.stages = in_order(self.stages)
        self.by_key = {stage.key: stage for stage in self.stages}
        self.state = {stage.key: "waiting" for stage in self.stages}
        self.alike = {stage.key: stage.likeness for stage in self.stages if self.grouped}

    def ready(self) -> tuple[Stage, ...]:
        """Return what to train next, several stages if they train as one; nothing if nothing can be."""
        return () if self.unwritten else next_ready(self.stages, self.state, self.alike, self.workers)

    def begin(self, stages: Sequence[Stage]) -> None:
        """Mark stages as handed out."""
        for stage in stages:
            self.state[stage.key] = "running"
            self.attempts[stage.key] = self.attempts.get(stage.key, 0) + 1

    def apart(self, stages: Sequence[Stage]) -> None:
        """Let stages wait that failed together, each to be trained alone: one of them may have been the reason."""
        for stage in stages:
            self.state[stage.key] = "waiting"
            self.alike.pop(stage.key)

    def count_ready(self) -> int:
        """Return how many stages can be trained now."""
        ready = (self.state.get(one.parent or "", "done") == "done" for one in self.stages if self._waits(one))
        return 0 if self.unwritten else sum(ready)

    def _waits(self, stage: Stage) -> bool:
        return self.state[stage.key] == "waiting"

    def fail(self, stage: Stage, reason: str) -> None:
        """Mark a stage as failed, and all below it as blocked."""
        self.state[stage.key], self.reasons[stage.key] = "failed", reason
        for child in self.stages:
            if child.parent == stage.key and self._waits(child):
                self.fail(child, f"blocked: the {stage.kind} it starts from failed: {reason}")
                self.state[child.key] = "blocked"

    def count(self, state: str) -> int:
        """Return how many stages are in a state."""
        return list(self.state.values()).count(state)

    @property
    def over(self) -> bool:
        """Whether nothing runs any more, and nothing waits that could."""
        return not self.count("running") and (bool(self.unwritten) or not self.count("waiting"))
