"""The order of stages: by hand, and within what no schedule can beat."""

from dataclasses import dataclass

import numpy as np
import pytest

from study.plan.order import in_order, simulate_schedule


@dataclass(frozen=True)
class Job:
    """Work to schedule."""

    key: str
    parent: str | None
    block: int
    length: float


BY_HAND = [
    Job("late", None, 1, 1000),
    Job("long", None, 0, 50),
    Job("long/child", "long", 0, 1),
    Job("short", None, 0, 10),
    Job("short/child", "short", 0, 100),
]


def test_the_longest_path_comes_first_and_whole_replicates_before_that() -> None:
    """'short' alone is shorter than 'long', but a long child waits for it."""
    assert [one.key for one in in_order(BY_HAND)] == ["short", "short/child", "long", "long/child", "late"]


def test_a_schedule_by_hand() -> None:
    seconds = {"short": 2.0, "short/child": 5.0, "long": 4.0, "long/child": 1.0, "late": 3.0}
    found = simulate_schedule(BY_HAND, seconds, 2)
    # Worker 0: short 0-2, short/child 2-7. Worker 1: long 0-4, long/child 4-5, late 5-8.
    assert found.order == ("short", "long", "short/child", "long/child", "late")
    assert (found.makespan, found.loads) == (8.0, (7.0, 8.0))
    # A free worker takes a stage of a later replicate when nothing of this one is ready; the longest chain remains.
    assert simulate_schedule(BY_HAND, seconds, 3).makespan == 7.0


def forest(random: np.random.Generator) -> tuple[list[Job], dict[str, float]]:
    jobs: list[Job] = []
    for number in range(40):
        parent = jobs[random.integers(number)] if number and random.random() < 0.7 else None
        block = parent.block if parent else int(random.integers(3))
        jobs.append(Job(f"{number:02d}", parent.key if parent else None, block, float(random.integers(1, 9))))
    return jobs, {one.key: float(random.uniform(0.1, 9)) for one in jobs}


def longest_chain(jobs: list[Job], seconds: dict[str, float]) -> float:
    done: dict[str | None, float] = {None: 0.0}
    for one in jobs:  # parents first
        done[one.key] = done[one.parent] + seconds[one.key]
    return max(done.values())


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_no_worker_idles_while_a_stage_is_ready(workers: int) -> None:
    """Graham's bound holds for every order as long as that is so, and not otherwise."""
    for seed in range(30):
        jobs, seconds = forest(np.random.default_rng(seed))
        found = simulate_schedule(jobs, seconds, workers)
        work, chain = sum(seconds.values()), longest_chain(jobs, seconds)
        assert sorted(found.order) == sorted(seconds)
        assert sum(found.loads) == pytest.approx(work)
        assert found.makespan >= max(work / workers, chain) - 1e-9
        for order in (jobs, jobs[::-1]):
            makespan = simulate_schedule(order, seconds, workers).makespan
            assert makespan <= work / workers + chain * (1 - 1 / workers) + 1e-9
