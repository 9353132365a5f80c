"""Stages of a study as members of a group that trains together: the weights that they start from, and their cells.

A member starts from the weights that `study.training.models` starts the same stage from.
"""

from __future__ import annotations

import numpy as np
import scvi
import torch
from scvi.model import SCANVI

from study.cells import UNLABELLED, Cells
from study.config import Settings
from study.plan import Split
from study.training.arguments import scanvi_arguments
from study.training.counts import OnDevice, hold
from study.training.fused import Member
from study.training.models import State, build_scvi, joint_anndata
from study.training.private import label_order


def pretraining(cells: Cells, parts: Split, settings: Settings, seed: int) -> Member:
    """Return the pretraining of scVI, as in `study.training.models.pretrain`."""
    scvi.settings.seed = seed
    return Member(build_scvi(joint_anndata(cells, parts), settings.scvi).module, parts.train, seed)


def finetuning(cells: Cells, parts: Split, settings: Settings, seed: int, scvi_state: State) -> Member:
    """Return the fine-tuning of scANVI, as in `study.training.models.finetune`."""
    pretrained = build_scvi(joint_anndata(cells, parts), settings.scvi)
    pretrained.module.load_state_dict(scvi_state)
    pretrained.is_trained_ = True
    scvi.settings.seed = seed
    model = SCANVI.from_scvi_model(
        pretrained, unlabeled_category=UNLABELLED, labels_key="label", **scanvi_arguments(settings.scanvi)
    )
    labels = cells.labels[parts.labelled]
    labelled = {name: parts.labelled[labels == code] for code, name in enumerate(cells.classes)}
    samples = settings.scanvi.n_samples_per_label
    return Member(
        model.module,
        parts.train,
        seed,
        labelled,
        None if samples == "all" else samples,
        settings.scanvi.classification_ratio,
    )


def cells_on(cells: Cells, device: torch.device) -> OnDevice:
    """Copy cells to a device, for members whatever they hold out."""
    room = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else 2**62
    place = label_order(cells.classes, UNLABELLED)
    labels = np.zeros(
        cells.counts.shape[0], dtype=np.int64
    )  # nobody asks for those of the query, or of cells without one
    labels[: cells.n_reference] = np.array([place.index(name) for name in cells.classes])[cells.labels]
    # Without those that do not occur, as in `joint_anndata`.
    there = sorted(cells.batches[code] for code in np.unique(cells.batch))
    batch = np.array([there.index(name) if name in there else -1 for name in cells.batches])[cells.batch]
    return OnDevice(
        hold(cells.counts, device, room), *(torch.from_numpy(codes).to(device) for codes in (batch, labels))
    )
