"""The stage tree on Ray Tune.

One Tuner runs all stages: a searcher hands out a stage once its parent is done, in the order of the tree, so there is
no barrier between the levels of the tree. Workers write results themselves; Ray's own state is disposable.

With `resources.engine=gpu` a worker trains a group of like stages at once, those that are ready when it asks. What
fails in one of them fails that one; where the group fails as a whole, each is trained again alone.

What is lost with a worker or a node is trained again, a few times; an exception in training would come again, so it
fails its stage at once, and so does a stage that outlasts `resources.stage_minutes`: the others go on. What cannot be
written ends the sweep: to train more would be in vain.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from study.cells import Cells
from study.config import Resources
from study.errors import WritingError
from study.files import explained
from study.plan import Stage
from study.sweep.capacity import fits, request
from study.sweep.cluster import error_text, nodes, set_up_tune
from study.sweep.failure import Failed, reason_of, short
from study.sweep.ledger import Tree
from study.sweep.overtime import limited, overtime_reason
from study.training import Hardware

Progress = Callable[["Tree"], None]
Finished = Callable[[Stage], None]
ATTEMPTS = 3
SCRATCH = ".ray-"


class _Forgotten:
    """Ray pickles what it is given, to resume from; we resume from results, so there is nothing to keep."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Worker(tune.Trainable):  # type: ignore[misc]
    """Performs one stage or group after the other; importing scvi-tools takes seconds, so it is reused."""

    def setup(
        self,
        config: dict[str, Any],
        stages: Mapping[str, Stage],
        cells: Mapping[str, Any],
        directory: str,
        scratch: str,
        resources: Resources,
    ) -> None:
        self._stages, self._cells, self._resources = stages, cells, resources
        self._directory, self._scratch = Path(directory), Path(scratch)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._group = [self._stages[key] for key in new_config["stages"]]
        return True

    def step(self) -> dict[str, Any]:
        # Takes seconds. In `setup` Tune would wait for it, and hand the stage to a worker that is ready meanwhile.
        from study.trials import perform_group

        _freeze()
        first, on = self._group[0], Hardware.of(self._resources)
        cells: Cells = ray.get(self._cells[first.condition.query])
        try:
            with limited(self._resources.stage_minutes, self._scratch / first.key):
                failed = perform_group(self._group, cells, self._directory, on)
        except WritingError as error:
            raise Failed.because(str(error), unwritten=True) from error
        except Exception as error:
            raise Failed.because(reason_of(error)) from error
        finally:
            gc.collect()  # models are in cycles, and would hold their cells until Python finds the time
        return {"done": True, "failed": {key: reason_of(error) for key, error in failed.items()}}


@cache
def _freeze() -> None:
    """Keep the garbage collector away, once, from what is imported: it would take half a second after each stage."""
    gc.freeze()


class _Searcher(_Forgotten, Searcher):  # type: ignore[misc]
    """Hands out stages in the order of the tree."""

    def __init__(self, tree: Tree, progress: Progress) -> None:
        super().__init__(metric="done", mode="max")
        self.tree, self.progress = tree, progress
        self.running: dict[str, tuple[Stage, ...]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return what is next, None while its parent is trained, or that there is nothing more."""
        if self.tree.over:
            return str(Searcher.FINISHED)
        group = self.tree.ready()
        if not group:
            return None
        for stage in group:
            self.tree.state[stage.key] = "running"
            self.tree.attempts[stage.key] = self.tree.attempts.get(stage.key, 0) + 1
        self.running[trial_id] = group
        self.progress(self.tree)
        return {"stages": [stage.key for stage in group]}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to learn from a result; `_Listener` does the accounting."""

    def save(self, checkpoint_path: str) -> None:
        """Ray may ask; running again needs no state of ours."""

    def restore(self, checkpoint_path: str) -> None:
        """Ray may ask; running again needs no state of ours."""


class _Listener(_Forgotten, tune.Callback):  # type: ignore[misc]
    """Keeps the account of stages, on the driver."""

    def __init__(
        self, searcher: _Searcher, finished: Callable[[Stage], object], scratch: Path, minutes: float | None
    ) -> None:
        self.searcher, self.finished, self.scratch, self.minutes = searcher, finished, scratch, minutes

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        tree, failed = self.searcher.tree, trial.last_result["failed"]
        for stage in self.searcher.running.pop(trial.trial_id):
            if stage.key in failed:
                tree.fail(stage, failed[stage.key])
            else:
                tree.state[stage.key] = "done"
                self.finished(stage)
        self.searcher.progress(tree)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        group = self.searcher.running.pop(trial.trial_id)
        stage, tree = group[0], self.searcher.tree
        text = error_text(trial)
        failed = Failed.read(text)
        overtime = overtime_reason(self.minutes, self.scratch / stage.key)
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


def train_stages(
    stages: Sequence[Stage],
    cells: Mapping[str, Cells],
    directory: Path,
    resources: Resources,
    finished: Finished,
    progress: Progress,
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

    Returns
    -------
    The tree as it was when the sweep ended: after Ctrl-C, or if something could not be written, some stages still wait.
    """
    at_once = fits(resources, nodes())
    tree = Tree(stages, {one.key: one.likeness for one in stages} if resources.engine == "gpu" else {}, at_once)
    set_up_tune(at_once)
    with _scratch(directory) as scratch:
        worker = tune.with_parameters(
            _Worker,
            stages=tree.by_key,
            cells={name: ray.put(one) for name, one in cells.items()},
            directory=str(directory),
            scratch=str(scratch),
            resources=resources,
        )
        searcher = _Searcher(tree, progress)
        placed = tune.with_resources(worker, tune.PlacementGroupFactory([request(resources)]))
        with _aside(finished) as later:
            listener = _Listener(searcher, later, scratch, resources.stage_minutes)
            _fit(_tuner(placed, searcher, listener, at_once, scratch), tree)
    return tree


def _fit(tuner: tune.Tuner, tree: Tree) -> None:
    """Train what the tree hands out. Ctrl-C ends it early, without an exception: the tree then tells what is left."""
    try:
        tuner.fit()
    except (OSError, EOFError, UnpicklingError):
        # Tune keeps its state on the disk that cannot be written to, and reads back what it could not write whole.
        if not tree.unwritten:
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


@contextmanager
def _aside(finished: Finished) -> Iterator[Callable[[Stage], object]]:
    """Do something in a thread, one after the other, so that no worker waits for it; at the end all of it is done.

    Raises
    ------
    Exception
        The first that it raised.
    """
    futures: list[Future[None]] = []
    with ThreadPoolExecutor(1) as pool:
        yield lambda stage: futures.append(pool.submit(finished, stage))
    for future in futures:
        future.result()
