"""The stage tree on Ray Tune.

One Tuner runs all stages: a searcher hands out a stage once its parent is done, in the order of the tree, so there is
no barrier between the levels of the tree, and of a search all rounds, tree after tree. Workers write results
themselves; Ray's own state is disposable.

With `resources.engine=gpu` a worker trains a group of like stages at once, those that are ready when it asks. What
fails in one of them fails that one; where the group fails as a whole, each is trained again alone.
What is lost with a worker or a node is trained again, a few times; an exception in training would come again, so it
fails its stage at once, and so does a stage that outlasts `resources.stage_minutes`: the others go on. What cannot be
written ends the sweep: to train more would be in vain.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from study.cells import Cells
from study.config import Resources
from study.files import explained
from study.plan import Stage
from study.sweep.capacity import fits, request
from study.sweep.cluster import error_text, nodes, set_up_tune
from study.sweep.ledger import Tree
from study.sweep.overtime import overtime_reason
from study.sweep.worker import Failed, Worker, short, write_round

Progress = Callable[["Tree"], None]
Finished = Callable[[Stage], None]
Further = Callable[["Tree"], Sequence[Stage]]
ATTEMPTS = 3
SCRATCH = ".ray-"


class _Forgotten:
    """Ray pickles what it is given, to resume from; we resume from results, so there is nothing to keep."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Aside:
    """Does things in a thread, one after the other, so that no worker waits for them; at the end all of it is done."""

    def __init__(self) -> None:
        self._pool, self._asked = ThreadPoolExecutor(1), list[Future[object]]()

    def later(self, what: Callable[..., object], *words: object) -> Future[object]:
        """Do something, after what was asked for before."""
        self._asked.append(self._pool.submit(what, *words))
        return self._asked[-1]

    def done(self) -> bool:
        """Wait until all of it is done; whether nothing was raised."""
        return all(one.exception() is None for one in self._asked)

    def __enter__(self) -> _Aside:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown()
        if kind is None:
            for one in self._asked:
                one.result()  # the first that was raised


class _Searcher(_Forgotten, Searcher):  # type: ignore[misc]
    """Hands out stages in the order of the tree, tree after tree; workers that are wanted later stand by."""

    def __init__(
        self,
        tree: Tree,
        progress: Progress,
        scratch: Path,
        aside: _Aside,
        begun: Future[object] | None = None,
        further: Further | None = None,
    ) -> None:
        super().__init__(metric="done", mode="max")
        self.tree, self.progress, self.scratch = tree, progress, scratch
        self.aside, self.begun, self.further = aside, begun, further
        self.running: dict[str, tuple[Stage, ...]] = {}
        self.standing: dict[str, Path] = {}  # the file that each waits for
        self.round, self.settled = 0, False
        self.error: Exception | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next stage, that there is none yet, or that there is nothing more."""
        if self.begun is not None and not self.begun.done():
            return self._stand_by(trial_id, self.tree.count("waiting"))
        failed = self.begun is not None and self.begun.exception() is not None
        if failed or (self.tree.over and not self._goes_on()):
            self.wake(len(self.standing))
            return str(Searcher.FINISHED)
        group = self.tree.ready()
        if not group:
            return None if self.further is None or self.tree.unwritten else self._stand_by(trial_id)
        self.tree.begin(group)
        self.running[trial_id] = group
        if self.standing:
            self.wake(self.tree.count_ready())
        self.progress(self.tree)
        return {"stages": [stage.key for stage in group], "round": self.round}

    def _stand_by(self, trial_id: str, most: float = math.inf) -> dict[str, Any] | None:
        """Return what keeps a worker, or has one start; it is ended by `wake`."""
        if len(self.standing) >= most:
            return None
        self.standing[trial_id] = self.scratch / f"go-{trial_id}"
        return {"go": str(self.standing[trial_id])}

    def wake(self, most: int) -> None:
        """Tell so many of the workers that stand by that they are wanted; if it cannot be written, they notice."""
        with suppress(OSError):
            for go in [go for go in self.standing.values() if not go.exists()][:most]:
                go.touch()

    def _goes_on(self) -> bool:
        """Take up what is to be trained after this tree; whether there is something. Asked once."""
        if self.further is None or self.settled or not self.aside.done():
            return False
        self.settled = True
        try:
            if stages := self.further(self.tree):
                tree = Tree(stages, self.tree.grouped, self.tree.workers)
                write_round(self.scratch, self.round + 1, tree.by_key)
                self.tree, self.round, self.settled = tree, self.round + 1, False
        except Exception as error:  # Tune would wrap it
            self.error = error
        return not self.settled

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to learn from a result; `_Listener` does the accounting."""

    def save(self, checkpoint_path: str) -> None:
        """Ray may ask; running again needs no state of ours."""

    def restore(self, checkpoint_path: str) -> None:
        """Ray may ask; running again needs no state of ours."""


class _Listener(_Forgotten, tune.Callback):  # type: ignore[misc]
    """Keeps the account of stages, on the driver."""

    def __init__(self, searcher: _Searcher, finished: Finished, minutes: float | None) -> None:
        self.searcher, self.finished, self.minutes = searcher, finished, minutes

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        group, tree = self._ended(trial), self.searcher.tree
        for stage in group:
            if reason := trial.last_result["failed"].get(stage.key):
                tree.fail(stage, reason)
            else:
                tree.state[stage.key] = "done"
                self.searcher.aside.later(self.finished, stage)
        if group:
            self.searcher.progress(tree)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        group = self._ended(trial)
        if not group:
            return  # lost while it stood by
        stage, tree = group[0], self.searcher.tree
        text = error_text(trial)
        failed = Failed.read(text)
        overtime = overtime_reason(self.minutes, self.searcher.scratch / stage.key)
        if failed and failed["unwritten"]:
            tree.state.update({one.key: "waiting" for one in group})
            tree.unwritten = failed["reason"]
        elif len(group) > 1:
            tree.apart(group)
        elif failed:
            tree.fail(stage, failed["reason"])
        elif overtime is not None:
            tree.fail(stage, overtime)
        elif tree.attempts[stage.key] < ATTEMPTS:
            tree.state[stage.key] = "waiting"
        else:
            # The first line only says when.
            tree.fail(stage, f"its worker was lost {ATTEMPTS} times: {short(text.partition(chr(10))[2])}")
        self.searcher.progress(tree)

    def _ended(self, trial: Any) -> tuple[Stage, ...]:
        """Return the stages of a trial that has ended; none if its worker stood by."""
        self.searcher.standing.pop(trial.trial_id, None)
        return self.searcher.running.pop(trial.trial_id, ())


def train_stages(
    stages: Sequence[Stage],
    cells: Mapping[str, Cells],
    directory: Path,
    resources: Resources,
    finished: Finished,
    progress: Progress,
    begin: Callable[[], object] | None = None,
    further: Further | None = None,
) -> Tree:
    """Train stages, each after its parent, on all the workers that fit.

    Parameters
    ----------
    stages
        What is missing, in the order of preference.
    cells
        Prepared cells by query; put into the object store once.
    directory
        Folder of the study, absolute and shared by all nodes.
    finished
        Called on the driver, in a thread of its own, after each stage that succeeded.
    progress
        Called on the driver whenever the tree changes.
    begin
        Called in that thread while workers start; nothing is trained before it is done, nor if it raises something.
    further
        Called on the driver with each tree that has ended, once `finished` is done; returns what to train next, if
        anything. Workers are kept from one tree to the next.

    Returns
    -------
    The last tree as it was when the sweep ended: after Ctrl-C, or if something could not be written, some stages still
    wait.
    """
    at_once = fits(resources, nodes())
    tree = Tree(stages, resources.engine == "gpu", at_once)
    set_up_tune(at_once)
    with _scratch(directory) as scratch:
        write_round(scratch, 0, tree.by_key)
        worker = tune.with_parameters(
            Worker,
            cells={name: ray.put(one) for name, one in cells.items()},
            directory=str(directory),
            scratch=str(scratch),
            resources=resources,
        )
        placed = tune.with_resources(worker, tune.PlacementGroupFactory([request(resources)]))
        with _Aside() as aside:
            begun = aside.later(begin) if begin is not None else None
            searcher = _Searcher(tree, progress, scratch, aside, begun, further)
            if begun is not None:
                begun.add_done_callback(lambda _: searcher.wake(at_once))
            listener = _Listener(searcher, finished, resources.stage_minutes)
            _fit(_tuner(placed, searcher, listener, at_once, scratch), searcher)
        if searcher.error is not None:
            raise searcher.error
    return searcher.tree


def _fit(tuner: tune.Tuner, searcher: _Searcher) -> None:
    """Train what is handed out. Ctrl-C ends it early, without an exception: the tree then tells what is left."""
    try:
        tuner.fit()
    except (OSError, EOFError, UnpicklingError):
        # Tune keeps its state on the disk that cannot be written to, and reads back what it could not write whole.
        if not searcher.tree.unwritten:
            raise


def _tuner(worker: Any, searcher: _Searcher, listener: _Listener, at_once: int, scratch: Path) -> tune.Tuner:
    """A tuner that does nothing but what searcher and listener say."""
    return tune.Tuner(
        worker,
        tune_config=tune.TuneConfig(
            search_alg=searcher, num_samples=-1, reuse_actors=True, max_concurrent_trials=at_once
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(scratch),
            verbose=0,
            progress_reporter=tune.CLIReporter(),  # says nothing; in a notebook another one would show itself
            callbacks=[listener],
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )


@contextmanager
def _scratch(directory: Path) -> Iterator[Path]:
    """Make a folder for what Ray writes; gone afterwards, with what a run that was killed has left of such folders."""
    for left in directory.glob(f"{SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)
    with explained(directory / SCRATCH):
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=directory))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
