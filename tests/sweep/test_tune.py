"""What is handed out, what is trained again and what is not: the parts that Tune drives, without a cluster."""

import heapq
import pickle
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray

from study.errors import InputError
from study.plan.order import simulate_schedule
from study.plan.stages import Stage
from study.sweep.ledger import Tree
from study.sweep.tune import ATTEMPTS, _Aside, _fit, _Listener, _Searcher
from study.sweep.worker import Failed
from tests.made import HANGS, planned


def sweep_of(folder: Path) -> tuple[Tree, _Searcher, _Listener]:
    tree = Tree(planned("{scanvi.linear_classifier: {levels: [true, false]}}", replicates=1).stages)
    searcher = _Searcher(tree, lambda tree: None, folder, _Aside())
    return tree, searcher, _Listener(searcher, lambda stage: None, 0.005)


def ended(trial: str, **failed: str) -> SimpleNamespace:
    """A Tune trial that came to its end, as far as the listener reads it."""
    return SimpleNamespace(trial_id=trial, last_result={"failed": failed})


def error(folder: Path, cause: Exception, trial: str) -> SimpleNamespace:
    """A Tune trial that ended with an exception, as far as the listener reads it: the text that Tune keeps."""
    path = folder / "error.txt"
    path.write_text(f"Failure # 1 (occurred at noon)\n{''.join(traceback.format_exception(cause))}\n")
    return SimpleNamespace(trial_id=trial, error_file=str(path))


@pytest.mark.parametrize(
    "cause",
    [ray.exceptions.ActorDiedError(), ray.exceptions.OutOfMemoryError("killed"), ray.exceptions.NodeDiedError("")],
)
def test_what_was_lost_with_its_worker_is_trained_again_a_few_times(tmp_path: Path, cause: Exception) -> None:
    tree, searcher, listener = sweep_of(tmp_path)
    first = tree.stages[0]
    for attempt in range(ATTEMPTS):
        assert searcher.suggest(str(attempt)) == {"stages": [first.key], "round": 0}
        listener.on_trial_error(0, [], error(tmp_path, cause, str(attempt)))
    assert tree.state[first.key] == "failed"
    assert "lost 3 times" in tree.reasons[first.key]
    assert type(cause).__name__ in tree.reasons[first.key]
    assert {tree.state[one.key] for one in tree.stages[1:]} == {"blocked"}
    assert tree.over


def test_an_exception_in_training_is_not_tried_again(tmp_path: Path) -> None:
    tree, searcher, listener = sweep_of(tmp_path)
    searcher.suggest("a")
    listener.on_trial_complete(0, [], ended("a"))
    searcher.suggest("b")
    arrived = pickle.loads(pickle.dumps(Failed.because("ValueError: {the loss}\nis nan")))
    listener.on_trial_error(0, [], error(tmp_path, arrived, "b"))
    assert list(tree.reasons.values()) == ["ValueError: {the loss}\nis nan"]
    assert searcher.suggest("c") == {"stages": [tree.stages[2].key], "round": 0}, "the others go on"


def test_what_cannot_be_written_ends_the_sweep(tmp_path: Path) -> None:
    """Its stage did not fail, and to train others would be in vain."""
    tree, searcher, listener = sweep_of(tmp_path)
    searcher.suggest("a")
    listener.on_trial_error(0, [], error(tmp_path, Failed.because("the disk is full", unwritten=True), "a"))
    assert tree.unwritten == "the disk is full"
    assert not tree.reasons
    assert tree.over
    assert tree.count("waiting") == len(tree.stages)


def test_a_stage_that_took_too_long_fails_with_that_reason(tmp_path: Path) -> None:
    """It ends its worker, which looks like a lost one; but it would hang again."""
    tree, searcher, listener = sweep_of(tmp_path)
    first = tree.stages[0]
    searcher.suggest("a")
    subprocess.run([sys.executable, "-c", HANGS, str(tmp_path / first.key)], check=False, timeout=60)
    listener.on_trial_error(0, [], error(tmp_path, ray.exceptions.ActorDiedError(), "a"))
    assert tree.state[first.key] == "failed"
    assert "took longer than resources.stage_minutes=0.005" in tree.reasons[first.key]


def test_what_goes_wrong_aside_is_raised_once_everything_was_done() -> None:
    done: list[Stage] = []

    def finished(stage: Stage) -> None:
        done.append(stage)
        if len(done) == 1:
            raise OSError("the disk is full")

    stages = planned().stages[:3]
    with pytest.raises(OSError, match="the disk is full"), _Aside() as aside:
        for stage in stages:
            aside.later(finished, stage)
    assert done == list(stages)


class FullDisk:
    """A tuner that cannot write its state."""

    def fit(self) -> None:
        """Train nothing."""
        raise EOFError("half a pickle")


def test_what_goes_wrong_aside_is_raised_where_tune_cannot_write_either(tmp_path: Path) -> None:
    """What Tune trips over on a full disk was said already; what else goes wrong was not."""
    tree, searcher, _ = sweep_of(tmp_path)
    with pytest.raises(EOFError):
        _fit(FullDisk(), searcher)
    tree.unwritten = "the disk is full"
    _fit(FullDisk(), searcher)

    def finished(stage: Stage) -> None:
        raise OSError("MLflow's database is gone")

    with pytest.raises(OSError, match="database is gone"), _Aside() as aside:
        aside.later(finished, tree.stages[0])
        _fit(FullDisk(), searcher)


def grouped(folder: Path, workers: int) -> tuple[Tree, _Searcher, _Listener]:
    """Two replicates of two samplings and two classifiers: two like pretrainings, twice four like fine-tunings."""
    factors = "{scanvi.n_samples_per_label: {levels: [5, all]}, scanvi.linear_classifier: {levels: [true, false]}}"
    stages = planned(factors, "query_cells=30", replicates=2).stages
    tree = Tree(stages, True, workers)
    searcher = _Searcher(tree, lambda tree: None, folder, _Aside())
    return tree, searcher, _Listener(searcher, lambda stage: None, None)


def test_like_stages_are_handed_out_together_and_fail_one_by_one(tmp_path: Path) -> None:
    tree, searcher, listener = grouped(tmp_path, 1)
    roots = searcher.suggest("a")["stages"]
    assert {tree.by_key[key].replicate.index for key in roots} == {0, 1}
    assert searcher.suggest("b") is None
    listener.on_trial_complete(0, [], ended("a"))
    together = [searcher.suggest(trial)["stages"] for trial in "bc"]
    for group in together:
        found = [tree.by_key[key] for key in group]
        assert len(found) == 4 and len({one.settings.scanvi.linear_classifier for one in found}) == 1
        assert {one.replicate.index for one in found} == {0, 1}
    lost, *others = together[0]
    listener.on_trial_complete(0, [], ended("b", **{lost: "the loss is nan"}))
    assert tree.reasons == {lost: "the loss is nan"} and {tree.state[key] for key in others} == {"done"}
    # What fails as a whole is trained again one by one.
    listener.on_trial_error(0, [], error(tmp_path, ray.exceptions.ActorDiedError(), "c"))
    again = [searcher.suggest(trial)["stages"] for trial in "defg"]
    assert again == [[key] for key in together[1]]
    listener.on_trial_error(0, [], error(tmp_path, Failed.because("no memory"), "d"))
    for trial in "efg":
        listener.on_trial_complete(0, [], ended(trial))
    assert tree.over and tree.count("done") == 8 and tree.reasons[together[1][0]] == "no memory"


def test_a_group_is_no_larger_than_a_worker_s_share(tmp_path: Path) -> None:
    """Of eight fine-tunings that are ready three workers get three at most; the last of all trains alone."""
    _, searcher, listener = grouped(tmp_path, 3)
    for root in "ab":
        assert len(searcher.suggest(root)["stages"]) == 1
    for root in "ab":
        listener.on_trial_complete(0, [], ended(root))
    assert [len(searcher.suggest(trial)["stages"]) for trial in "cdefg"] == [3, 2, 1, 1, 1]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_sweep_hands_out_stages_as_simulated(workers: int, together: bool, tmp_path: Path) -> None:
    """The searcher and listener that Tune drives, over a real plan, with a clock of our own."""
    stages = planned().stages
    seconds = {one.key: float(s) for one, s in zip(stages, np.random.default_rng(0).uniform(1, 9, 60), strict=True)}
    searcher = _Searcher(Tree(stages[::-1], together, workers), lambda tree: None, tmp_path, _Aside())
    listener = _Listener(searcher, lambda stage: None, None)
    running: list[tuple[float, str]] = []
    handed_out: list[str] = []
    now = 0.0
    while not searcher.tree.over:
        while len(running) < workers and isinstance(found := searcher.suggest(f"{len(handed_out):02d}"), dict):
            taken = sum(seconds[key] for key in found["stages"])
            heapq.heappush(running, (now + taken, f"{len(handed_out):02d}"))
            handed_out += found["stages"]
        now, trial = heapq.heappop(running)
        listener.on_trial_complete(0, [], ended(trial))
    foreseen = simulate_schedule(stages[::-1], seconds, workers, searcher.tree.alike)
    assert tuple(handed_out) == foreseen.order
    assert now == pytest.approx(foreseen.makespan)


def test_workers_stand_by_while_a_sweep_begins_and_between_rounds(tmp_path: Path) -> None:
    """Tune ends a worker that it has no trial for, and another would have to import scvi-tools."""
    first, *others = planned("{scanvi.linear_classifier: {levels: [true, false]}}", replicates=1).stages
    rounds = [others, []]
    began = threading.Event()
    with _Aside() as aside:
        tree = Tree([first])
        searcher = _Searcher(tree, lambda tree: None, tmp_path, aside, aside.later(began.wait), lambda _: rounds.pop(0))
        listener = _Listener(searcher, lambda stage: None, None)
        early = searcher.suggest("early")
        assert isinstance(early, dict)
        assert not Path(early["go"]).exists()
        assert searcher.suggest("none") is None, "no more workers than stages"
        began.set()
        aside.done()
        assert searcher.suggest("a") == {"stages": [first.key], "round": 0}
        listener.on_trial_complete(0, [], ended("early"))
        later = searcher.suggest("later")
        assert isinstance(later, dict)
        assert not Path(later["go"]).exists()
        listener.on_trial_complete(0, [], ended("a"))
        assert searcher.suggest("b") == {"stages": [others[0].key], "round": 1}
        assert pickle.loads((tmp_path / "round-1.pickle").read_bytes())[others[0].key] == others[0]
        assert Path(later["go"]).exists(), "another stage is ready"
        listener.on_trial_complete(0, [], ended("later"))
        assert searcher.suggest("c") == {"stages": [others[1].key], "round": 1}
        last = searcher.suggest("last")
        assert isinstance(last, dict)
        for trial in ("b", "c"):
            listener.on_trial_complete(0, [], ended(trial))
        assert searcher.suggest("d") == "FINISHED"
        assert Path(last["go"]).exists()


def test_nothing_is_handed_out_where_a_sweep_cannot_begin(tmp_path: Path) -> None:
    def refused() -> None:
        raise InputError("MLflow cannot be used")

    tree = Tree(planned(replicates=1).stages)
    with pytest.raises(InputError, match="MLflow cannot be used"), _Aside() as aside:
        searcher = _Searcher(tree, lambda tree: None, tmp_path, aside, aside.later(refused))
        aside.done()
        assert searcher.suggest("a") == "FINISHED"
    assert tree.count("waiting") == len(tree.stages)
