"""In what order stages are trained, and how long a tree of them takes on some workers.

List scheduling (Graham 1969): a worker that is free takes the first stage, in one fixed order, whose parent is done.
The sweep and `simulate_schedule` ask the same two functions, so what is foreseen is what happens.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar


class Work(Protocol):
    """What is scheduled: a stage, or anything like it."""

    @property
    def key(self) -> str:
        """Its name."""

    @property
    def parent(self) -> str | None:
        """Name of what must be done before it."""

    @property
    def block(self) -> int:
        """Its replicate."""

    @property
    def length(self) -> float:
        """Its length, in optimiser steps; above 0."""


W = TypeVar("W", bound=Work)


@dataclass(frozen=True)
class Schedule:
    """What each worker did.

    Attributes
    ----------
    makespan
        When the last one is done, in seconds.
    loads
        Seconds of work of each worker.
    order
        Keys in the order in which they were handed out.
    """

    makespan: float
    loads: tuple[float, ...]
    order: tuple[str, ...]


def in_order(work: Sequence[W]) -> tuple[W, ...]:
    """Return work in the order of preference: whole replicates, in each the longest path to a leaf first.

    A parent comes before its children, because its path is longer than theirs. What is equal keeps its order.
    """
    path = _paths(work)
    return tuple(sorted(work, key=lambda one: (one.block, -path[one.key])))


def first_ready(ordered: Sequence[W], state: Mapping[str, str]) -> W | None:
    """Return the first that waits and whose parent is done (or was done before this run)."""
    for one in ordered:
        if state[one.key] == "waiting" and state.get(one.parent or "", "done") == "done":
            return one
    return None


def simulate_schedule(work: Sequence[W], seconds: Mapping[str, float], workers: int) -> Schedule:
    """Return the schedule of a tree on some workers that are all alike.

    Parameters
    ----------
    work
        In any order; a parent that is not among it is done.
    seconds
        How long each takes, by key.
    workers
        How many at once.
    """
    ordered = in_order(work)
    state = {one.key: "waiting" for one in ordered}
    free, running = list(range(workers)), list[tuple[float, int, str]]()
    loads, order, now = [0.0] * workers, list[str](), 0.0
    while True:
        while free and (one := first_ready(ordered, state)) is not None:
            worker = heapq.heappop(free)
            state[one.key] = "running"
            order.append(one.key)
            loads[worker] += seconds[one.key]
            heapq.heappush(running, (now + seconds[one.key], worker, one.key))
        if not running:
            return Schedule(now, tuple(loads), tuple(order))
        now, worker, key = heapq.heappop(running)
        state[key] = "done"
        heapq.heappush(free, worker)


def _paths(work: Sequence[Work]) -> dict[str, float]:
    """Length of the longest path from each to a leaf, its own included, by key."""
    children: dict[str | None, list[Work]] = {}
    for one in work:
        children.setdefault(one.parent, []).append(one)

    def path(one: Work) -> float:
        return one.length + max((path(child) for child in children.get(one.key, [])), default=0.0)

    return {one.key: path(one) for one in work}
