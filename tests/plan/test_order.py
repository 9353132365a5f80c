"""The order of stages: by hand, within what no schedule can beat, and the same as in the real sweep."""

import heapq
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from study.config.composition import compose
from study.errors import InputError
from study.plan.order import in_order, lower_bound, simulate_schedule
from study.sweep.capacity import fits, refuse_too_large
from study.sweep.ledger import Tree
from study.sweep.tune import _Listener, _Searcher
from tests.plan.test_tree import planned


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
    assert lower_bound(BY_HAND, seconds, 2) == 7.5
    assert lower_bound(BY_HAND, seconds, 9) == 7.0, "short and its child"
    # A free worker takes a stage of a later replicate when nothing of this one is ready.
    assert simulate_schedule(BY_HAND, seconds, 3).makespan == 7.0


def forest(random: np.random.Generator) -> tuple[list[Job], dict[str, float]]:
    jobs: list[Job] = []
    for number in range(40):
        parent = jobs[random.integers(number)] if number and random.random() < 0.7 else None
        block = parent.block if parent else int(random.integers(3))
        jobs.append(Job(f"{number:02d}", parent.key if parent else None, block, float(random.integers(1, 9))))
    return jobs, {one.key: float(random.uniform(0.1, 9)) for one in jobs}


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_no_worker_idles_while_a_stage_is_ready(workers: int) -> None:
    """Graham's bound holds for every order as long as that is so, and not otherwise."""
    for seed in range(30):
        jobs, seconds = forest(np.random.default_rng(seed))
        found = simulate_schedule(jobs, seconds, workers)
        work, chain = sum(seconds.values()), lower_bound(jobs, seconds, 10**6)
        assert sorted(found.order) == sorted(seconds)
        assert sum(found.loads) == pytest.approx(work)
        assert found.makespan >= lower_bound(jobs, seconds, workers) - 1e-9
        assert found.makespan <= work / workers + chain * (1 - 1 / workers) + 1e-9
        assert (
            simulate_schedule(jobs[::-1], seconds, workers).makespan
            <= work / workers + chain * (1 - 1 / workers) + 1e-9
        )


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_sweep_hands_out_stages_as_simulated(workers: int, tmp_path: Path) -> None:
    """The searcher and listener that Tune drives, over a real plan, with a clock of our own."""
    stages = planned().stages
    seconds = {one.key: float(s) for one, s in zip(stages, np.random.default_rng(0).uniform(1, 9, 60), strict=True)}
    searcher = _Searcher(Tree(stages[::-1]), lambda tree: None)
    listener = _Listener(searcher, lambda stage: None, tmp_path, None)
    running: list[tuple[float, str]] = []
    handed_out: list[str] = []
    now = 0.0
    while not searcher.tree.over:
        while len(running) < workers and isinstance(found := searcher.suggest(f"{len(handed_out)}"), dict):
            heapq.heappush(running, (now + seconds[found["stage"]], f"{len(handed_out)}"))
            handed_out.append(found["stage"])
        now, trial = heapq.heappop(running)
        listener.on_trial_complete(0, [], SimpleNamespace(trial_id=trial))
    foreseen = simulate_schedule(stages[::-1], seconds, workers)
    assert tuple(handed_out) == foreseen.order
    assert now == pytest.approx(foreseen.makespan)


def test_a_stage_is_not_spread_over_nodes() -> None:
    laptop = compose(["resources.cpus=3"]).resources
    assert fits(laptop, [{"CPU": 4}, {"CPU": 7}]) == 1 + 2
    with pytest.raises(InputError, match="the largest node has 2"):
        refuse_too_large(laptop, [{"CPU": 2}, {"CPU": 2}])
    shared = compose(["resources=gpu_node", "resources.cpus=1", "resources.gpus=0.3"]).resources
    assert fits(shared, [{"CPU": 64, "GPU": 0.9}]) == 3
    assert fits(shared.model_copy(update={"concurrent": 2}), [{"CPU": 64, "GPU": 0.9}]) == 2
    with pytest.raises(InputError, match="no one node has together"):
        refuse_too_large(shared, [{"CPU": 64}, {"GPU": 1}])
