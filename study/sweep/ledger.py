"""The account of a sweep: which stages wait, run, are done, failed, or are blocked by a failed parent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from study.plan import Stage, first_ready, in_order


@dataclass
class Tree:
    """Which stages wait, run, are done, failed, or are blocked by a failed parent.

    Attributes
    ----------
    unwritten
        What could not be written, if that ended the sweep; its stage waits.
    """

    stages: Sequence[Stage]
    state: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    unwritten: str = ""

    def __post_init__(self) -> None:
        self.stages = in_order(self.stages)
        self.by_key = {stage.key: stage for stage in self.stages}
        self.state = {stage.key: "waiting" for stage in self.stages}

    def ready(self) -> Stage | None:
        """Return the stage to train next, if one can be."""
        return None if self.unwritten else first_ready(self.stages, self.state)

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
