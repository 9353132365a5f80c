"""The stage tree on Ray Tune. The only module that imports ray.

One Tuner runs all stages: a searcher hands out a stage once its parent is done, in the order of `schedule`, so there
is no barrier between the levels of the tree. Workers write results themselves; Ray's own state is disposable.

What is lost with a worker or a node is trained again, a few times; an exception in training would come again, so it
fails its stage at once, and so does a stage that outlasts `resources.stage_minutes`: the others go on.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from study.config import Resources
from study.data import Cells
from study.overtime import limited, reason
from study.plan import Stage
from study.schedule import first_ready, fits, in_order, refuse_too_large, request

Progress = Callable[["Tree"], None]
Finished = Callable[[Stage], None]
ATTEMPTS = 3
# A worker or node was lost, or killed for memory by Ray or the operating system: no fault of the stage.
TRANSIENT = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
)


@dataclass
class Tree:
    """Which stages wait, run, are done, failed, or are blocked by a failed parent."""

    stages: Sequence[Stage]
    state: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stages = in_order(self.stages)
        self.by_key = {stage.key: stage for stage in self.stages}
        self.state = {stage.key: "waiting" for stage in self.stages}

    def ready(self) -> Stage | None:
        """Return the stage to train next, if one can be."""
        return first_ready(self.stages, self.state)

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
        """Whether nothing waits or runs any more."""
        return not self.count("waiting") and not self.count("running")


class _Forgotten:
    """Ray pickles what it is given, to resume from; we resume from results, so there is nothing to keep."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


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
        from study.stage import perform
        from study.train import Hardware

        cells: Cells = ray.get(self._cells[self._stage.condition.query])
        with limited(self._resources.stage_minutes, self._scratch / self._stage.key):
            perform(self._stage, cells, self._directory, Hardware.of(self._resources))
        return {"done": True}


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
        error = _error_of(trial)
        cause = getattr(error, "cause", None) or error
        overtime = reason(self.minutes, self.scratch / stage.key)
        if overtime is not None:
            tree.fail(stage, overtime)
        elif isinstance(cause, TRANSIENT) and tree.attempts[stage.key] < ATTEMPTS:
            tree.state[stage.key] = "waiting"
        else:
            tree.fail(stage, f"{type(cause).__name__}: {cause}".strip().splitlines()[0])
        self.searcher.progress(tree)


def _error_of(trial: Any) -> Exception:
    """Return the exception that ended a Tune trial. Tune keeps it in a file, and copies that to storage only later."""
    path = Path(trial.pickled_error_file or "")
    if path.is_file():
        with path.open("rb") as file:
            error: Exception = ray.cloudpickle.load(file)
            return error
    return RuntimeError("the worker gave no reason")


@contextmanager
def cluster(resources: Resources) -> Iterator[None]:
    """Start Ray on this machine, or connect to a cluster, and refuse what does not fit.

    Raises
    ------
    InputError
        If one stage needs more than the whole cluster has.
    """
    # Ray warns of it, and we never hide devices from a stage without a GPU.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # What fails is reported by us, once, with its reason.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if not ray.is_initialized():
        ray.init(address=resources.address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        refuse_too_large(resources, _nodes())
        yield
    finally:
        ray.shutdown()


def _nodes() -> list[dict[str, float]]:
    """What each node of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def run(
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
    The tree as it was when the sweep ended: after Ctrl-C some stages still wait.
    """
    tree = Tree(stages)
    searcher = _Searcher(tree, progress)
    at_once = fits(resources, _nodes())
    # With a searcher Tune would otherwise start one worker at a time.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(at_once)
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    scratch = Path(tempfile.mkdtemp(prefix=".ray-", dir=directory))
    worker = tune.with_parameters(
        _Worker,
        stages=tree.by_key,
        cells={name: ray.put(one) for name, one in cells.items()},
        directory=str(directory),
        scratch=str(scratch),
        resources=resources,
    )
    try:
        with _aside(finished) as later:
            # Ctrl-C ends `fit` early, without an exception: the tree then tells what is left.
            tune.Tuner(
                tune.with_resources(worker, tune.PlacementGroupFactory([request(resources)])),
                tune_config=tune.TuneConfig(
                    search_alg=searcher, num_samples=-1, reuse_actors=True, max_concurrent_trials=at_once
                ),
                run_config=tune.RunConfig(
                    name="sweep",
                    storage_path=str(scratch),
                    verbose=0,
                    callbacks=[_Listener(searcher, later, scratch, resources.stage_minutes)],
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return tree


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
