"""The account of a sweep: which stages wait, run, are done, failed, or are blocked by a failed parent."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from study.plan import Stage, in_order, next_ready


@dataclass
class Tree:
    """Which stages wait, run, are done, failed, or are blocked by a failed parent.

    Attributes
    ----------
    alike
        What stages have in common that train as one, by key; empty where each trains alone.
    workers
        How many at once.
    unwritten
        What could not be written, if that ended the sweep; its stage waits.
    """

    stages: Sequence[Stage]
    alike: dict[str, Hashable] = field(default_factory=dict)
    workers: int = 1
    state: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    unwritten: str = ""

    def __post_init__(self) -> None:
        self.stages = in_order(self.stages)
        self.by_key = {stage.key: stage for stage in self.stages}
        self.state = {stage.key: "waiting" for stage in self.stages}

    def ready(self) -> tuple[Stage, ...]:
        """Return what to train next, several stages if they train as one; nothing if nothing can be."""
        return () if self.unwritten else next_ready(self.stages, self.state, self.alike, self.workers)

    def apart(self, stages: Sequence[Stage]) -> None:
        """Let stages wait that failed together, each to be trained alone: one of them may have been the reason."""
        for stage in stages:
            self.state[stage.key] = "waiting"
            self.alike.pop(stage.key)

    def fail(self, stage: Stage, reason: str) -> None:
        """Mark a stage as failed, and all below it as blocked."""
        self.state[stage.key], self.reasons[stage.key] = "failed", reason
        for child in self.stages:
            if child.parent == stage.key and self.state[child.key] == "waiting":
                self.fail(child, f"blocked: the {stage.kind} it starts from failed: {reason}")
                self.state[child.key] = "blocked"

    def count(self, state: str) -> int:
        """Return how many stages are in a state."""
        return list(self.state.values()).count(state)

    @property
    def over(self) -> bool:
        """Whether nothing runs any more, and nothing waits that could."""
        return not self.count("running") and (bool(self.unwritten) or not self.count("waiting"))
