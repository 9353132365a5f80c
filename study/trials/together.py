"""The work of several like stages that train as one network; each has results, weights and a record of its own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from study.cells import Cells
from study.errors import WritingError
from study.plan import Split, Stage, split_cells
from study.training import Asked, Hardware, Snapshot, State, assemble
from study.trials.reading import read_level
from study.trials.store import read_state
from study.trials.timing import Stopwatch, timing_of, write_timing


@dataclass(frozen=True)
class _Course:
    """A stage of a group, with what was read from it: its own time, and the training's at each epoch level."""

    stage: Stage
    parts: Split
    asked: Asked
    watch: Stopwatch = field(default_factory=Stopwatch)
    reached: list[tuple[int, float]] = field(default_factory=list)


def perform_together(stages: Sequence[Stage], cells: Cells, directory: Path, on: Hardware) -> dict[str, Exception]:
    """Train like stages as one network and write what each was trained for.

    Parameters
    ----------
    stages
        What to train, alike as `Stage.likeness` says; their parents' weights are on disk.
    cells, directory, on
        As for `study.trials.perform.perform`.

    Returns
    -------
    Why stages failed, by key: those of a loss that is not finite, and those that could not be read. The others are
    done.

    Raises
    ------
    WritingError
        If something cannot be written.
    """
    watch, failed = Stopwatch(), dict[str, Exception]()
    with watch.part("setup"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `perform`
        cells = stages[0].condition.take(cells)
        courses = [one for stage in stages if (one := _begun(stage, cells, directory, failed)) is not None]
        if not courses:
            return failed
        group = assemble(cells, [one.asked for one in courses], on)

    def read(at: int, snapshot: Snapshot) -> None:
        one, share = courses[at], 1 / len(courses)
        if one.stage.key in failed:
            return
        with watch.part("reading"):  # entered first, because that adds up the seconds of training so far
            one.reached.append((snapshot.epoch, watch.seconds["training"] * share))
            seconds = (watch.seconds["setup"] + watch.seconds["training"]) * share + sum(one.watch.seconds.values())
            try:
                read_level(one.stage, cells, one.parts, directory, snapshot, one.watch, seconds)
            except WritingError:
                raise
            except Exception as error:  # of this one alone
                failed[one.stage.key] = error

    with watch.part("training"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        diverged = group.train(read)
    failed |= {courses[at].stage.key: error for at, error in diverged.items()}
    for one in courses:
        if one.stage.key not in failed:
            # What they did together is shared out, so that the seconds of stages add up to those of workers.
            spent = {name: watch.seconds[name] / len(courses) for name in ("setup", "training")} | one.watch.seconds
            write_timing(directory, timing_of(one.stage, cells, on, spent, sum(spent.values()), watch, one.reached))
    return failed


def _begun(stage: Stage, cells: Cells, directory: Path, failed: dict[str, Exception]) -> _Course | None:
    """What a stage starts from; None if its parent's weights cannot be read."""
    replicate, settings = stage.replicate, stage.settings
    parts = split_cells(cells, replicate.fold, stage.folds, settings.scvi.batch_size)
    state: State | None = None
    try:
        if stage.parent:
            state = read_state(directory, stage.parent, stage.before[-1])
    except (OSError, ValueError) as error:
        failed[stage.key] = error
        return None
    return _Course(stage, parts, Asked(parts, settings, replicate.seed, stage.epochs, state))
