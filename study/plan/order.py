"""In what order stages are trained, and how long a tree of them takes on some workers.

List scheduling (Graham 1969): a worker that is free takes the first stage, in one fixed order, whose parent is done.
The sweep and `simulate_schedule` ask the same two functions, so what is foreseen is what happens.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, TypeVar

TOGETHER = 16  # stages that train as one at most: of more a GPU has no more
NOTHING: Mapping[str, Hashable] = MappingProxyType({})


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


def next_ready(
    ordered: Sequence[W], state: Mapping[str, str], alike: Mapping[str, Hashable] = NOTHING, workers: int = 1
) -> tuple[W, ...]:
    """Return what a worker trains next: the first that waits and whose parent is done (or was done before this run).

    Parameters
    ----------
    alike
        What stages have in common that can train as one, by key. The first one's like come with it, but no more than
        a worker's share of what is ready (guided self-scheduling, Polychronopoulos & Kuck 1987).
    workers
        How many at once.
    """
    ready = (one for one in ordered if state[one.key] == "waiting" and state.get(one.parent or "", "done") == "done")
    first = next(ready, None)
    if first is None:
        return ()
    if first.key not in alike:
        return (first,)
    others = list(ready)
    most = min(TOGETHER, math.ceil((1 + len(others)) / workers))
    return (first, *[one for one in others if alike.get(one.key) == alike[first.key]])[:most]


def simulate_schedule(
    work: Sequence[W],
    seconds: Mapping[str, float] | Callable[[Sequence[W]], float],
    workers: int,
    alike: Mapping[str, Hashable] = NOTHING,
) -> Schedule:
    """Return the schedule of a tree on some workers that are all alike.

    Parameters
    ----------
    work
        In any order; a parent that is not among it is done.
    seconds
        How long each takes, by key, where those that train as one each have their share; or what says how long those
        take that train as one.
    workers
        How many at once.
    alike
        As in `next_ready`.
    """
    ordered = in_order(work)
    state = {one.key: "waiting" for one in ordered}
    free, running = list(range(workers)), list[tuple[float, int, tuple[str, ...]]]()
    loads, order, now = [0.0] * workers, list[str](), 0.0
    while True:
        while free and (group := next_ready(ordered, state, alike, workers)):
            worker, keys = heapq.heappop(free), tuple(one.key for one in group)
            state.update(dict.fromkeys(keys, "running"))
            order += keys
            taken = seconds(group) if callable(seconds) else sum(seconds[key] for key in keys)
            loads[worker] += taken
            heapq.heappush(running, (now + taken, worker, keys))
        if not running:
            return Schedule(now, tuple(loads), tuple(order))
        now, worker, keys = heapq.heappop(running)
        state.update(dict.fromkeys(keys, "done"))
        heapq.heappush(free, worker)


def _paths(work: Sequence[Work]) -> dict[str, float]:
    """Length of the longest path from each to a leaf, its own included, by key."""
    children: dict[str | None, list[Work]] = {}
    for one in work:
        children.setdefault(one.parent, []).append(one)

    def path(one: Work) -> float:
        return one.length + max((path(child) for child in children.get(one.key, [])), default=0.0)

    return {one.key: path(one) for one in work}
