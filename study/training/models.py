"""One stage of training: scVI pretraining, scANVI fine-tuning with snapshots, or surgery on a query.

Each function trains a new module once, from a seed set at its start, and calls `read` at each epoch level, with the
module in eval mode and every random state put back afterwards. So a snapshot at epoch 3 of 6 equals, bit for bit, a
separate run of 3 epochs: nothing in a schedule depends on `max_epochs` (the KL weight warms up over 400 epochs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scvi.model import SCANVI, SCVI

from study.cells import UNLABELLED, Cells
from study.config import Settings
from study.plan import Indices, Split, query_rows
from study.training.arguments import resolve, scanvi_arguments, scvi_arguments
from study.training.building import (
    State,
    anndata_of,
    categorical,
    joint_anndata,
    nameless,
    new_scanvi,
    new_scvi,
    prepare,
)
from study.training.exact import equip, lean_likelihoods
from study.training.halted import Halted
from study.training.hardware import Hardware
from study.training.members import Asked, assemble
from study.training.private import SubSampleLabels
from study.training.snapshot import ReadSnapshot, Watch


def pretrain(
    cells: Cells, parts: Split, settings: Settings, seed: int, epochs: Sequence[int], read: ReadSnapshot, on: Hardware
) -> None:
    """Train scVI on the training cells of a condition, without labels.

    Parameters
    ----------
    cells
        Reference and query.
    parts
        Training, held-out and left-out rows; only the first are trained on.
    settings
        Settings of the trial; `max_epochs` is not looked at.
    seed
        Set for torch, numpy and python before anything is made.
    epochs
        Epoch levels to read, ascending; training ends at the last.
    read
        Called with a `Snapshot` at each level.

    Raises
    ------
    TrainingError
        If the loss is not finite, or training ends before the last level.
    """
    if on.engine == "gpu":
        _alone(cells, Asked(parts, settings, seed, epochs), read, on)
        return
    model = new_scvi(cells, parts, settings, seed, on)
    watch = Watch(model, epochs, read)
    _train(model, watch, parts.train, settings, on)


def finetune(
    cells: Cells,
    parts: Split,
    settings: Settings,
    seed: int,
    epochs: Sequence[int],
    read: ReadSnapshot,
    on: Hardware,
    scvi_state: State,
    start: Halted | None = None,
    leave: Callable[[Halted], None] | None = None,
) -> None:
    """Train scANVI from pretrained scVI weights, on the same training cells.

    Parameters
    ----------
    cells, parts, settings, seed, epochs, read, on
        As in `pretrain`.
    scvi_state
        The weights.
    start
        A halted training with the same of all these, to go on with.
    leave
        Called at the end with what is needed to go on; None where nobody will.

    Raises
    ------
    ValueError
        If the engine `gpu` is asked for `start` or `leave`: it does not go on with halted trainings.
    """
    if on.engine == "gpu":
        if start is not None or leave is not None:
            raise ValueError("resources.engine=gpu does not go on with halted trainings")
        _alone(cells, Asked(parts, settings, seed, epochs, scvi_state), read, on)
        return
    model = new_scanvi(cells, parts, settings, seed, on, scvi_state)
    watch = Watch(model, epochs, read, classes=cells.classes, start=start, leave=leave)
    samples = settings.scanvi.n_samples_per_label
    _train(
        model,
        watch,
        parts.train,
        settings,
        on,
        n_samples_per_label=None if samples == "all" else samples,
        plan_kwargs={"classification_ratio": settings.scanvi.classification_ratio},
    )


def operate(
    cells: Cells,
    parts: Split,
    settings: Settings,
    seed: int,
    epochs: Sequence[int],
    read: ReadSnapshot,
    on: Hardware,
    scanvi_state: State,
) -> None:
    """Map a query onto a finished reference model (surgery). Parameters as in `pretrain`.

    `scanvi_state` belongs to a scANVI fine-tuned on the reference alone; only the weights of new batches are trained.
    """
    reference = joint_anndata(cells.first(0), parts)
    SCANVI.setup_anndata(reference, batch_key="batch", labels_key="label", unlabeled_category=UNLABELLED)
    trained = SCANVI(reference, **resolve({**scvi_arguments(settings.scvi), **scanvi_arguments(settings.scanvi)}))
    trained.module.load_state_dict(scanvi_state)
    trained.is_trained_ = True
    prepare(seed, on)  # only now, as in `finetune`
    unlabelled = categorical(np.zeros(cells.n_query, dtype=np.int32), (UNLABELLED,))
    query = anndata_of(cells, slice(cells.n_reference, None), unlabelled)
    model = SCANVI.load_query_data(query, trained, accelerator=on.accelerator)
    # Some parts of a model under surgery are frozen in eval mode on purpose.
    watch = Watch(model, epochs, read, partly_frozen=True)
    _train(
        model,
        watch,
        query_rows(parts, settings.scvi.batch_size) - cells.n_reference,
        settings,
        on,
        plan_kwargs={"weight_decay": 0.0, "classification_ratio": settings.scanvi.classification_ratio},
    )


def _train(
    model: SCVI | SCANVI,
    watch: Watch,
    rows: Indices,
    settings: Settings,
    on: Hardware,
    **more: Any,
) -> None:
    """Train on some rows until the last epoch level."""
    equip(model, on.engine)
    # A new index: asked for a name, as it was in setting up, it makes a table of all and keeps that.
    model.adata.obs_names = nameless(model.adata.n_obs)
    # Given callbacks replace scANVI's own, and without SubSampleLabels the labelled cells are drawn once for all.
    callbacks = [watch, SubSampleLabels()] if watch.classes else [watch]
    with lean_likelihoods():
        model.train(
            max_epochs=watch.epochs[-1],
            batch_size=settings.scvi.batch_size,
            datasplitter_kwargs={"rows": rows, "device": "cuda" if on.resident else None},
            callbacks=callbacks,
            accelerator=on.accelerator,
            devices=1,
            enable_progress_bar=False,
            logger=False,
            **more,
        )
    watch.confirm()


def _alone(cells: Cells, asked: Asked, read: ReadSnapshot, on: Hardware) -> None:
    """Train a stage as a group of one."""
    for error in assemble(cells, [asked], on).train(lambda _, snapshot: read(snapshot)).values():
        raise error
