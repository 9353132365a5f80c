"""Stages of a study as members of a group that trains together, each read at its own epoch levels.

A member has the model that `study.training.models` trains the same stage with, so it starts from the same weights; what
a group has trained is put back into it to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scvi.model import SCANVI, SCVI

from study.cells import UNLABELLED, Cells
from study.config import Settings
from study.plan import Split
from study.training.building import State, nameless, new_scanvi, new_scvi
from study.training.counts import OnDevice, hold
from study.training.exact import equip
from study.training.fused import Trained, train_together
from study.training.group import Member
from study.training.hardware import Hardware
from study.training.private import label_order
from study.training.snapshot import Snapshot, TrainingError

# Called with the number of a stage and its snapshot.
ReadMember = Callable[[int, Snapshot], None]


@dataclass(frozen=True, eq=False)
class Asked:
    """A stage of a group, as `study.training.models.pretrain` and `finetune` are asked for it.

    Attributes
    ----------
    scvi_state
        Pretrained weights; None for a pretraining.
    """

    parts: Split
    settings: Settings
    seed: int
    epochs: Sequence[int]
    scvi_state: State | None = None


@dataclass(frozen=True, eq=False)
class Assembly:
    """A group that is ready to train: what was asked for, a model for each, and all cells where they are trained."""

    asked: Sequence[Asked]
    models: Sequence[SCVI | SCANVI]
    members: Sequence[Member]
    held: OnDevice

    def train(self, read: ReadMember) -> dict[int, TrainingError]:
        """Train all of them.

        Parameters
        ----------
        read
            Called at each epoch level that a stage was asked for, with its model in eval mode.

        Returns
        -------
        Why some failed, by their numbers: a loss that is not finite ends a stage, and the others go on.

        Raises
        ------
        ValueError
            If they cannot train together.
        """

        def reached(at: int, epoch: int, one: Trained) -> None:
            if epoch not in self.asked[at].epochs:
                return
            model = self.models[at]
            model.module.load_state_dict(one.states[epoch])
            model.to_device(str(self.held.batch.device))
            model.is_trained_ = True
            model.module.eval()
            curves = {name: list(values) for name, values in one.curves.items()}
            read(at, Snapshot(epoch, model, curves, one.probes[epoch]))

        levels = sorted({epoch for one in self.asked for epoch in one.epochs})
        size = self.asked[0].settings.scvi.batch_size
        found = train_together(self.members, self.held, levels, size, read=reached)
        return {
            at: TrainingError(
                f"the training loss is {one.curves['train_loss'][one.diverged - 1]} in epoch {one.diverged}"
            )
            for at, one in enumerate(found)
            if one.diverged is not None
        }


def assemble(cells: Cells, asked: Sequence[Asked], on: Hardware) -> Assembly:
    """Put stages of the same cells together, whose networks have equal shapes."""
    device = torch.device("cuda" if on.accelerator == "gpu" else "cpu")
    models = [_model_of(cells, one, on) for one in asked]
    members = [_member_of(model, cells, one) for model, one in zip(models, asked, strict=True)]
    return Assembly(asked, models, members, cells_on(cells, device))


def _model_of(cells: Cells, one: Asked, on: Hardware) -> SCVI | SCANVI:
    """The model of a stage, which predicts as one of the other engines does."""
    if one.scvi_state is None:
        model = new_scvi(cells, one.parts, one.settings, one.seed, on)
    else:
        model = new_scanvi(cells, one.parts, one.settings, one.seed, on, one.scvi_state)
    equip(model, "exact")
    # A new index: asked for a name, as it was in setting up, it makes a table of all and keeps that.
    model.adata.obs_names = nameless(model.adata.n_obs)
    return model


def _member_of(model: SCVI | SCANVI, cells: Cells, one: Asked) -> Member:
    """The member of a group that a stage is."""
    if one.scvi_state is None:
        return Member(model.module, one.parts.train, one.seed)
    labels = cells.labels[one.parts.labelled]
    labelled = {name: one.parts.labelled[labels == code] for code, name in enumerate(cells.classes)}
    samples, ratio = one.settings.scanvi.n_samples_per_label, one.settings.scanvi.classification_ratio
    return Member(model.module, one.parts.train, one.seed, labelled, None if samples == "all" else samples, ratio)


def cells_on(cells: Cells, device: torch.device) -> OnDevice:
    """Copy cells to a device, for members whatever they hold out."""
    room = 2**62
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what an earlier group gave back is free
        room = torch.cuda.mem_get_info(device)[0] // 2
    place = label_order(cells.classes, UNLABELLED)
    # Nobody asks for the labels of the query, or of cells without one.
    labels = np.zeros(cells.counts.shape[0], dtype=np.int64)
    labels[: cells.n_reference] = np.array([place.index(name) for name in cells.classes])[cells.labels]
    # Without those that do not occur, as in `joint_anndata`.
    there = sorted(cells.batches[code] for code in np.unique(cells.batch))
    batch = np.array([there.index(name) if name in there else -1 for name in cells.batches])[cells.batch]
    return OnDevice(
        hold(cells.counts, device, room), *(torch.from_numpy(codes).to(device) for codes in (batch, labels))
    )
