"""A stage at its epoch levels, read without disturbing its training, which is watched for what would spoil it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from scvi.model import SCANVI, SCVI

from study.plan import KL_WARMUP
from study.training.batches import LabelledBatches
from study.training.halted import Halted, halt, take_up, take_up_chance
from study.training.private import SubSampleLabels, steps_taken


class TrainingError(Exception):
    """A training that went wrong, such as a loss that is not finite."""


@dataclass(frozen=True)
class Snapshot:
    """A stage at one epoch level.

    Attributes
    ----------
    model
        The model, in eval mode; valid only while it is being read.
    curves
        Training curves so far, name to one value per epoch.
    probes
        What the schedule did: optimiser steps, final KL weight, labelled cells drawn.
    """

    epoch: int
    model: SCVI | SCANVI
    curves: dict[str, list[float]]
    probes: dict[str, Any]


ReadSnapshot = Callable[[Snapshot], None]


# No repr: lightning asks for that of its callbacks, and a model's prints itself.
@dataclass(eq=False, repr=False)
class Watch(Callback):  # type: ignore[misc]
    """Reads a stage at its epoch levels without disturbing it, and checks that it trains as it should.

    Attributes
    ----------
    epochs
        Levels to read, ascending.
    read
        Called with a `Snapshot` at each.
    classes
        Whose labelled cells are drawn anew in each epoch; empty where none are drawn.
    partly_frozen
        Whether parts of the model are in eval mode on purpose (surgery).
    curves
        Training curves so far, name to one value per epoch.
    reached
        The last level that was read.
    start
        A halted training that this one goes on with; None for a new one.
    leave
        Called with what it needs to go on, at its end; None where it will not.
    """

    model: SCVI | SCANVI
    epochs: Sequence[int]
    read: ReadSnapshot
    classes: Sequence[str] = ()
    partly_frozen: bool = False
    curves: dict[str, list[float]] = field(default_factory=dict)
    reached: int = 0
    start: Halted | None = None
    leave: Callable[[Halted], None] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Check what the sharing of stages rests on, and go on where a halted training was."""
        if self.start is not None:
            take_up(trainer, pl_module, self.start)
            self.curves.update(self.start["curves"])
        if self.classes:
            assert any(isinstance(c, SubSampleLabels) for c in trainer.callbacks), "labelled cells would be drawn once"
        assert pl_module.n_epochs_kl_warmup == KL_WARMUP, "a schedule that depends on the epochs cannot be shared"

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Let chance go on where a halted training was: before labelled cells are drawn."""
        if self.start is not None and trainer.current_epoch == self.start["epoch"]:
            take_up_chance(trainer, self.start)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Check the mode at the first step."""
        # A second train() on a model, or one after load, would run without dropout and with BatchNorm frozen.
        if batch_idx == 0 and not self.partly_frozen:
            assert all(part.training for part in pl_module.module.modules()), "training in eval mode"

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep the curves, and read the stage if this is one of its levels."""
        epoch = trainer.current_epoch + 1
        for name, value in pl_module.epoch_metrics().items():
            self.curves.setdefault(name, []).append(value)
        loss = self.curves["train_loss"][-1]
        if not math.isfinite(loss):
            raise TrainingError(f"the training loss is {loss} in epoch {epoch}")
        if epoch in self.epochs:
            with undisturbed(pl_module.module):
                curves = {name: list(values) for name, values in self.curves.items()}
                self.model.is_trained_ = True  # or scvi-tools refuses to read the latent space
                self.read(Snapshot(epoch, self.model, curves, self._probes(trainer, pl_module)))
                self.model.is_trained_ = False
            self.reached = epoch
        if epoch == self.epochs[-1] and self.leave is not None:
            self.leave(halt(trainer, pl_module, self.curves))

    def confirm(self) -> None:
        """Raise unless every level was read: scvi-tools ends a training early without an error on an interrupt."""
        if self.reached != self.epochs[-1]:
            raise TrainingError(f"training ended after epoch level {self.reached} of {self.epochs[-1]}")

    def _probes(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        probes: dict[str, Any] = {"steps": steps_taken(trainer), "kl_weight": float(pl_module.kl_weight)}
        loader = trainer.train_dataloader
        if isinstance(loader, LabelledBatches):
            labels = self.model.adata.obs["label"].to_numpy()
            rows = np.flatnonzero(loader.draws)  # of the cells that were drawn at least once
            draws = {name: loader.draws[rows[labels[rows] == name]] for name in self.classes}
            probes["labelled_batches"] = len(loader.dataloaders[1])
            probes["batches"] = len(loader)
            probes["distinct_labelled"] = {name: of_class.size for name, of_class in draws.items()}
            probes["draws_per_cell"] = {name: float(found.mean()) for name, found in draws.items() if found.size}
        return probes


@contextmanager
def undisturbed(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into eval mode; afterwards restore the mode of each part and all random states.

    Prediction in train mode would change BatchNorm statistics, and its loader draws from the global generator.
    """
    modes = [(part, part.training) for part in module.modules()]
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
