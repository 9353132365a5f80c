"""One stage's work, from its parent's weights to weights and results on disk; where it runs, others decide."""

from __future__ import annotations

import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from study.cells import Cells
from study.config import dump
from study.plan import Split, Stage, split_cells
from study.training import (
    Hardware,
    Snapshot,
    finetune,
    joint_anndata,
    operate,
    predict_probabilities,
    pretrain,
    state_of,
)
from study.trials.evidence import Evidence
from study.trials.metrics import measure
from study.trials.neighbours import neighbour_probabilities
from study.trials.probes import latent_of, probe
from study.trials.record import Predictions, Result
from study.trials.store import read_halted, read_state, write_halted, write_result, write_state
from study.trials.timing import Stopwatch, Timing, worker_name, write_timing

KINDS = ("pretraining", "fine-tuning", "surgery")  # in the order of a chain


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
    watch = Stopwatch()
    reached: list[tuple[int, float]] = []
    with watch.part("setup"):
        cells = stage.condition.take(cells)
        parts = split_cells(cells, stage.replicate.fold, stage.folds, stage.settings.scvi.batch_size)
        state = read_state(directory, stage.parent, stage.before[-1]) if stage.parent else {}
        start = read_halted(directory, stage.key, stage.begun) if stage.begun else None
        leave = partial(write_halted, directory, stage.key) if stage.leave else None

    def read(snapshot: Snapshot) -> None:
        with watch.part("writing"):  # entered first, because that adds up the seconds of training so far
            reached.append((snapshot.epoch - stage.begun, watch.seconds["training"]))
            if snapshot.epoch in stage.keep:
                write_state(directory, stage.key, snapshot.epoch, state_of(snapshot.model))
        if snapshot.epoch in stage.trials:
            with watch.part("evaluation"):
                found = _evaluated(stage, cells, parts, snapshot, watch.total)
            with watch.part("writing"):
                write_result(directory, *found)

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
    write_timing(directory, _timing(stage, cells, on, watch, reached))


def _evaluated(
    stage: Stage, cells: Cells, parts: Split, snapshot: Snapshot, seconds: float
) -> tuple[Result, Predictions, Evidence]:
    """Predict, evaluate and probe one trial; `seconds` is how long its stage has taken so far."""
    # Under surgery a model knows the query alone, and must be told of the reference.
    adata = joint_anndata(cells, parts) if stage.kind == "surgery" else None
    latent = latent_of(snapshot.model, adata)
    probes = snapshot.probes
    if stage.kind == "pretraining":  # scVI calls nothing anything: the labels are those of neighbours
        probabilities = neighbour_probabilities(latent, cells.labels, len(cells.classes), parts)
    else:
        probabilities = predict_probabilities(snapshot.model, cells, adata)
        probes = probes | probe(snapshot.model, cells, parts, adata)
    if stage.kind == "surgery":
        # The reference once more on its own: sums in other minibatches would differ in their last digits, and
        # what surgery leaves alone must come out the same for every query.
        alone = joint_anndata(cells.first(0), parts)
        probabilities[: cells.n_reference] = predict_probabilities(snapshot.model, cells, alone)
    result = Result.of(
        stage.trials[snapshot.epoch],
        _settings(stage, snapshot.epoch),
        stage.condition,
        stage.replicate,
        stage.folds,
        cells,
        stage.digest,
        parts,
        measure(probabilities, cells, parts),
        epochs=dict(zip(KINDS, (*stage.before, snapshot.epoch), strict=False)),
        curves=snapshot.curves,
        probes=probes,
        seconds=seconds,
    )
    return result, Predictions.of(probabilities, parts), Evidence.of(probabilities, latent, cells.labels, parts)


def _timing(stage: Stage, cells: Cells, on: Hardware, watch: Stopwatch, reached: list[tuple[int, float]]) -> Timing:
    """The record of what a stage took."""
    scvi, seconds = stage.settings.scvi, watch.seconds
    return Timing(
        key=stage.key,
        kind=stage.kind,
        hardware=on,
        cells=cells.counts.shape[0],
        genes=cells.counts.shape[1],
        classes=len(cells.classes),
        network=(scvi.n_layers, scvi.n_hidden, scvi.batch_size),
        steps_per_epoch=stage.steps_per_epoch,
        epochs=stage.training,
        steps=stage.length,
        trials=len(stage.trials),
        setup=seconds["setup"],
        training=seconds["training"],
        evaluation=seconds["evaluation"],
        writing=seconds["writing"],
        reached=tuple(reached),
        seconds=watch.total,
        started=watch.started,
        ended=time.time(),
        worker=worker_name(),
    )


def _settings(stage: Stage, epoch: int) -> dict[str, Any]:
    """Settings of a trial as it was really trained: the cells it met and the epochs it had."""
    values = dump(stage.settings)
    values |= {"query": stage.condition.query, "query_cells": stage.condition.n_cells, "budget": "epochs"}
    # Only as many stages as led to it: neighbours are asked before scANVI is trained.
    for name, reached in zip(("scvi", "scanvi"), (*stage.before, epoch), strict=False):
        values[name]["max_epochs"] = reached
    return values
