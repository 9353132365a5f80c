"""One stage of training: scVI pretraining, scANVI fine-tuning with snapshots, or surgery on a query.

Each function trains a new module once, from a seed set at its start, and calls `read` at each epoch level, with the
module in eval mode and every random state put back afterwards. So a snapshot at epoch 3 of 6 equals, bit for bit, a
separate run of 3 epochs: nothing in a schedule depends on `max_epochs` (the KL weight warms up over 400 epochs).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scvi
import torch
from anndata import AnnData
from scvi.model import SCANVI, SCVI

from study.cells import UNLABELLED, Cells
from study.config import ScviSettings, Settings
from study.plan import Indices, Split, query_rows
from study.training.arguments import resolve, scanvi_arguments, scvi_arguments
from study.training.exact import equip, lean_likelihoods
from study.training.halted import Halted
from study.training.hardware import Hardware
from study.training.private import SubSampleLabels
from study.training.snapshot import ReadSnapshot, Watch

State = dict[str, torch.Tensor]
PREDICTED = 1024  # cells of a minibatch in prediction
MINIBATCHES = 16  # of one call of scvi-tools, see `portions`


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
    _prepare(seed, on)
    model = build_scvi(joint_anndata(cells, parts), settings.scvi)
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
    """
    adata = joint_anndata(cells, parts)
    pretrained = build_scvi(adata, settings.scvi)
    pretrained.module.load_state_dict(scvi_state)
    pretrained.is_trained_ = True
    # Only now, because the model that carried the weights has drawn weights of its own.
    _prepare(seed, on)
    model = SCANVI.from_scvi_model(
        pretrained,
        unlabeled_category=UNLABELLED,
        labels_key="label",
        **resolve(scanvi_arguments(settings.scanvi)),
    )
    assert model.n_labels == len(cells.classes), "a class without a training cell, or a phantom class"
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
    _prepare(seed, on)  # only now, as in `finetune`
    unlabelled = _categorical(np.zeros(cells.n_query, dtype=np.int32), (UNLABELLED,))
    query = _anndata(cells, slice(cells.n_reference, None), unlabelled)
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


def joint_anndata(cells: Cells, parts: Split) -> AnnData:
    """Reference and query over the shared counts, held-out cells labelled as unknown."""
    words = (*cells.classes, UNLABELLED)
    labels = np.full(cells.counts.shape[0], words.index(UNLABELLED), dtype=np.int32)
    labels[: cells.n_reference] = np.where(cells.labels < 0, words.index(UNLABELLED), cells.labels)
    labels[parts.held_out] = words.index(UNLABELLED)
    return _anndata(cells, slice(None), _categorical(labels, words))


def build_scvi(adata: AnnData, settings: ScviSettings) -> SCVI:
    """Return a new scVI model for cells made by `joint_anndata`."""
    SCVI.setup_anndata(adata, batch_key="batch")
    return SCVI(adata, **resolve(scvi_arguments(settings)))


def predict_probabilities(
    model: SCANVI, cells: Cells, adata: AnnData | None = None, first: int | None = None
) -> npt.NDArray[np.float32]:
    """Return the probability of each class for each cell, shape (n_cells, n_classes), columns as in `cells.classes`.

    With `adata` for its cells instead of the model's, and with `first` for so many of them.
    """
    n = (model.adata if adata is None else adata).n_obs if first is None else first
    found = np.empty((n, len(cells.classes)), dtype=np.float32)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for rows in portions(np.arange(n), PREDICTED):
            soft = model.predict(adata, indices=rows, soft=True, batch_size=PREDICTED)
            found[rows] = soft[list(cells.classes)].to_numpy(dtype=np.float32)
    return found


def portions(rows: Indices, batch_size: int) -> Iterator[Indices]:
    """Yield rows in portions of `MINIBATCHES` minibatches.

    What scvi-tools keeps of each minibatch lies between the large pieces of memory that minibatches give back, and
    holds them apart until its call ends: over all cells at once memory would grow as if the counts were dense.
    """
    for start in range(0, rows.size, MINIBATCHES * batch_size):
        yield rows[start : start + MINIBATCHES * batch_size]


def state_of(model: SCVI | SCANVI) -> State:
    """Return a copy of the weights on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in model.module.state_dict().items()}


def _anndata(cells: Cells, rows: slice, labels: pd.Categorical) -> AnnData:
    """AnnData over some consecutive rows of the shared counts, without a copy where these are all."""
    counts = cells.counts if rows == slice(None) else cells.counts[rows]
    obs = {"batch": _categorical(cells.batch[rows], cells.batches), "label": labels}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return AnnData(counts, obs=pd.DataFrame(obs, index=_nameless(labels.size)))


def _nameless(n: int) -> pd.Index[str]:
    """An index that calls all cells alike: nobody asks for one by name, and names would take 100 bytes each."""
    index: pd.Index[str] = pd.Index(np.full(n, "", dtype=object))
    return index


def _categorical(codes: npt.NDArray[np.int32], words: tuple[str, ...]) -> pd.Categorical:
    """A column with only those categories that occur: scvi-tools makes phantom classes and batches of unused ones."""
    column = pd.Categorical.from_codes(codes, categories=pd.Index(words))
    return column.set_categories(sorted(words[code] for code in np.unique(codes)))  # type: ignore[return-value]


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
    model.adata.obs_names = _nameless(model.adata.n_obs)
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


def _prepare(seed: int, on: Hardware) -> None:
    """Seed everything, take as many threads as there are, and quieten what says the same in every stage."""
    for chatty in ("lightning.pytorch", "lightning.fabric", "scvi"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    torch.set_num_threads(on.threads)
    scvi.settings.seed = seed  # seeds when it is assigned, and at no other time
