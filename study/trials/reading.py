"""What is read from a stage in training at an epoch level: weights for its children, and the result of a trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from study.cells import Cells
from study.config import dump
from study.plan import Split, Stage
from study.training import Snapshot, joint_anndata, predict_probabilities, state_of
from study.trials.evidence import Evidence
from study.trials.metrics import measure
from study.trials.neighbours import neighbour_probabilities
from study.trials.probes import latent_of, probe
from study.trials.record import Predictions, Result
from study.trials.store import write_result, write_state
from study.trials.timing import Stopwatch

KINDS = ("pretraining", "fine-tuning", "surgery")  # in the order of a chain


def read_level(
    stage: Stage, cells: Cells, parts: Split, directory: Path, snapshot: Snapshot, watch: Stopwatch, seconds: float
) -> None:
    """Write what a stage was trained for at one of its levels.

    Parameters
    ----------
    stage
        The stage.
    cells, parts
        The cells of its condition, and how they were divided.
    directory
        Folder of the study.
    snapshot
        What there is of it.
    watch
        Counts `writing` and `evaluation`.
    seconds
        How long the stage has taken so far.
    """
    with watch.part("writing"):
        if snapshot.epoch in stage.keep:
            write_state(directory, stage.key, snapshot.epoch, state_of(snapshot.model))
    if snapshot.epoch in stage.trials:
        with watch.part("evaluation"):
            found = _evaluated(stage, cells, parts, snapshot, seconds)
        with watch.part("writing"):
            write_result(directory, *found)


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


def _settings(stage: Stage, epoch: int) -> dict[str, Any]:
    """Settings of a trial as it was really trained: the cells it met and the epochs it had."""
    values = dump(stage.settings)
    values |= {"query": stage.condition.query, "query_cells": stage.condition.n_cells, "budget": "epochs"}
    # Only as many stages as led to it: neighbours are asked before scANVI is trained.
    for name, reached in zip(("scvi", "scanvi"), (*stage.before, epoch), strict=False):
        values[name]["max_epochs"] = reached
    return values
