"""The models of stages, as they are before training, and what one of them says of its cells.

A stage's model is made here whichever engine trains it, so it starts from the same weights in all of them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
import scvi
import torch
from anndata import AnnData
from scvi.model import SCANVI, SCVI

from study.cells import UNLABELLED, Cells
from study.config import ScviSettings, Settings
from study.plan import Indices, Split
from study.training.arguments import resolve, scanvi_arguments, scvi_arguments
from study.training.hardware import Hardware

State = dict[str, torch.Tensor]
PREDICTED = 1024  # cells of a minibatch in prediction
MINIBATCHES = 16  # of one call of scvi-tools, see `portions`


def new_scvi(cells: Cells, parts: Split, settings: Settings, seed: int, on: Hardware) -> SCVI:
    """Return the model that a pretraining starts from, with everything seeded."""
    prepare(seed, on)
    return build_scvi(joint_anndata(cells, parts), settings.scvi)


def new_scanvi(cells: Cells, parts: Split, settings: Settings, seed: int, on: Hardware, scvi_state: State) -> SCANVI:
    """Return the model that a fine-tuning starts from, of pretrained weights, with everything seeded."""
    pretrained = build_scvi(joint_anndata(cells, parts), settings.scvi)
    pretrained.module.load_state_dict(scvi_state)
    pretrained.is_trained_ = True
    # Only now, because the model that carried the weights has drawn weights of its own.
    prepare(seed, on)
    model = SCANVI.from_scvi_model(
        pretrained,
        unlabeled_category=UNLABELLED,
        labels_key="label",
        **resolve(scanvi_arguments(settings.scanvi)),
    )
    assert model.n_labels == len(cells.classes), "a class without a training cell, or a phantom class"
    return model


def joint_anndata(cells: Cells, parts: Split) -> AnnData:
    """Reference and query over the shared counts, held-out cells labelled as unknown."""
    words = (*cells.classes, UNLABELLED)
    labels = np.full(cells.counts.shape[0], words.index(UNLABELLED), dtype=np.int32)
    labels[: cells.n_reference] = np.where(cells.labels < 0, words.index(UNLABELLED), cells.labels)
    labels[parts.held_out] = words.index(UNLABELLED)
    return anndata_of(cells, slice(None), categorical(labels, words))


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


def anndata_of(cells: Cells, rows: slice, labels: pd.Categorical) -> AnnData:
    """AnnData over some consecutive rows of the shared counts, without a copy where these are all."""
    counts = cells.counts if rows == slice(None) else cells.counts[rows]
    obs = {"batch": categorical(cells.batch[rows], cells.batches), "label": labels}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return AnnData(counts, obs=pd.DataFrame(obs, index=nameless(labels.size)))


def nameless(n: int) -> pd.Index[str]:
    """An index that calls all cells alike: nobody asks for one by name, and names would take 100 bytes each."""
    index: pd.Index[str] = pd.Index(np.full(n, "", dtype=object))
    return index


def categorical(codes: npt.NDArray[np.int32], words: tuple[str, ...]) -> pd.Categorical:
    """A column with only those categories that occur: scvi-tools makes phantom classes and batches of unused ones."""
    column = pd.Categorical.from_codes(codes, categories=pd.Index(words))
    return column.set_categories(sorted(words[code] for code in np.unique(codes)))  # type: ignore[return-value]


def prepare(seed: int, on: Hardware) -> None:
    """Seed everything, take as many threads as there are, and quieten what says the same in every stage."""
    for chatty in ("lightning.pytorch", "lightning.fabric", "scvi"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    torch.set_num_threads(on.threads)
    scvi.settings.seed = seed  # seeds when it is assigned, and at no other time
