"""The stage tree on Ray Tune.

One Tuner runs all stages: a searcher hands out a stage once its parent is done, in the order of the tree, so there is
no barrier between the levels of the tree. Workers write results themselves; Ray's own state is disposable.

What is lost with a worker or a node is trained again, a few times; an exception in training would come again, so it
fails its stage at once, and so does a stage that outlasts `resources.stage_minutes`: the others go on. What cannot be
written ends the sweep: to train more would be in vain.
"""

from __future__ import annotations

import gc
import json
import re
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
from study.imports import uncollected
from study.plan import Stage
from study.sweep.capacity import fits, request
from study.sweep.cluster import error_text, nodes, set_up_tune
from study.sweep.ledger import Tree
from study.sweep.overtime import limited, overtime_reason
from study.training import Hardware

Progress = Callable[["Tree"], None]
Finished = Callable[[Stage], None]
ATTEMPTS = 3
SCRATCH = ".ray-"
LONGEST = 400  # characters of a reason


class _Forgotten:
    """Ray pickles what it is given, to resume from; we resume from results, so there is nothing to keep."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Failed(Exception):
    """Why a stage failed, as JSON on a line: of what a worker raises, Tune keeps a text for everybody to read.

    Where a text has no such line, the stage itself did not fail: its worker or node was lost, or was killed for memory
    by Ray or the operating system.
    """

    @classmethod
    def because(cls, reason: str, unwritten: bool = False) -> _Failed:
        """Return the exception; not in the constructor, which is called again when it is unpickled."""
        return cls(json.dumps({"reason": reason, "unwritten": unwritten}))

    @staticmethod
    def read(text: str) -> dict[str, Any] | None:
        """Return what a text says of the failure of a stage; None if nothing."""
        lines = re.findall(r"_Failed: (\{.*\})\s*$", text, re.MULTILINE)
        found: dict[str, Any] | None = json.loads(lines[-1]) if lines else None
        return found


class _Worker(tune.Trainable):  # type: ignore[misc]
    """Performs one stage after the other; importing scvi-tools takes seconds, so it is reused."""

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
        self._stage = self._stages[new_config["stage"]]
        return True

    def step(self) -> dict[str, Any]:
        # Takes seconds. In `setup` Tune would wait for it, and hand the stage to a worker that is ready meanwhile.
        with uncollected():
            from study.trials import perform

        _freeze()
        cells: Cells = ray.get(self._cells[self._stage.condition.query])
        try:
            with limited(self._resources.stage_minutes, self._scratch / self._stage.key):
                perform(self._stage, cells, self._directory, Hardware.of(self._resources))
        except WritingError as error:
            raise _Failed.because(str(error), unwritten=True) from error
        except Exception as error:
            raise _Failed.because(f"{type(error).__name__}: {_short(str(error))}") from error
        finally:
            gc.collect()  # models are in cycles, and would hold their cells until Python finds the time
        return {"done": True}


@cache
def _freeze() -> None:
    """Keep the garbage collector away, once, from what is imported: it would take half a second after each stage."""
    gc.freeze()


class _Searcher(_Forgotten, Searcher):  # type: ignore[misc]
    """Hands out stages in the order of the tree."""

    def __init__(self, tree: Tree, progress: Progress) -> None:
        super().__init__(metric="done", mode="max")
        self.tree, self.progress = tree, progress
        self.running: dict[str, Stage] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next stage, None while its parent is trained, or that there is nothing more."""
        if self.tree.over:
            return str(Searcher.FINISHED)
        stage = self.tree.ready()
        if stage is None:
            return None
        self.tree.state[stage.key] = "running"
        self.tree.attempts[stage.key] = self.tree.attempts.get(stage.key, 0) + 1
        self.running[trial_id] = stage
        self.progress(self.tree)
        return {"stage": stage.key}

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
        stage = self.searcher.running.pop(trial.trial_id)
        self.searcher.tree.state[stage.key] = "done"
        self.finished(stage)
        self.searcher.progress(self.searcher.tree)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        stage = self.searcher.running.pop(trial.trial_id)
        tree = self.searcher.tree
        text = error_text(trial)
        failed = _Failed.read(text)
        overtime = overtime_reason(self.minutes, self.scratch / stage.key)
        if failed and failed["unwritten"]:
            tree.state[stage.key], tree.unwritten = "waiting", failed["reason"]
        elif failed:
            tree.fail(stage, failed["reason"])
        elif overtime is not None:
            tree.fail(stage, overtime)
        elif tree.attempts[stage.key] < ATTEMPTS:
            tree.state[stage.key] = "waiting"
        else:
            # The first line only says when.
            tree.fail(stage, f"its worker was lost {ATTEMPTS} times: {_short(text.partition(chr(10))[2])}")
        self.searcher.progress(tree)


def _short(text: str) -> str:
    """Return a text on one line, cut where it gets too long."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


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
    tree = Tree(stages)
    at_once = fits(resources, nodes())
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
