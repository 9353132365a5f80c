"""One stage's work, from its parent's weights to weights and results on disk; where it runs, others decide."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from study.cells import Cells
from study.plan import Stage, split_cells
from study.training import Hardware, Snapshot, finetune, operate, pretrain
from study.trials.reading import read_level
from study.trials.store import read_halted, read_state, write_halted
from study.trials.timing import Stopwatch, timing_of, write_timing
from study.trials.together import perform_together


def perform(stage: Stage, cells: Cells, directory: Path, on: Hardware) -> None:
    """Train a stage and write what it was trained for.

    Parameters
    ----------
    stage
        What to train; its parent's weights are on disk.
    cells
        Prepared cells of its query (all of them; the stage takes its condition's part).
    directory
        Folder of the study.
    on
        What to train on.

    Raises
    ------
    TrainingError
        If training went wrong.
    """
    if on.engine == "gpu":
        for error in perform_together([stage], cells, directory, on).values():
            raise error
        return
    watch = Stopwatch()
    reached: list[tuple[int, float]] = []
    with watch.part("setup"):
        cells = stage.condition.take(cells)
        parts = split_cells(cells, stage.replicate.fold, stage.folds, stage.settings.scvi.batch_size)
        state = read_state(directory, stage.parent, stage.before[-1]) if stage.parent else {}
        start = read_halted(directory, stage.key, stage.begun) if stage.begun else None
        leave = partial(write_halted, directory, stage.key) if stage.leave else None

    def read(snapshot: Snapshot) -> None:
        with watch.part("reading"):  # entered first, because that adds up the seconds of training so far
            reached.append((snapshot.epoch - stage.begun, watch.seconds["training"]))
            read_level(stage, cells, parts, directory, snapshot, watch, watch.total)

    with warnings.catch_warnings(), watch.training():
        # scvi-tools and lightning warn of small batches, few workers and the empty validation part: all on purpose.
        warnings.simplefilter("ignore")
        settings, seed, epochs = stage.settings, stage.replicate.seed, stage.epochs
        if stage.kind == "pretraining":
            pretrain(cells, parts, settings, seed, epochs, read, on)
        elif stage.kind == "fine-tuning":
            finetune(cells, parts, settings, seed, epochs, read, on, state, start, leave)
        else:
            operate(cells, parts, settings, seed, epochs, read, on, state)
    write_timing(directory, timing_of(stage, cells, on, watch.seconds, watch.total, watch, reached))


def perform_group(stages: Sequence[Stage], cells: Cells, directory: Path, on: Hardware) -> dict[str, Exception]:
    """Train stages that were handed out together, several as one network; return why some failed, by key.

    Raises
    ------
    Exception
        As `perform` does, of one stage, or of all of them.
    """
    if len(stages) > 1:
        return perform_together(stages, cells, directory, on)
    perform(stages[0], cells, directory, on)
    return {}
