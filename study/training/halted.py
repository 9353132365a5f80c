"""A training where it stopped: all that its next epoch depends on, so that it goes on as if it never had."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from study.training.private import advance_to, steps_taken

# Tensors, numbers and text alone: it is read back as weights are, and nothing in it is run.
Halted = dict[str, Any]


def halt(trainer: Any, plan: Any, curves: dict[str, list[float]]) -> Halted:
    """Return what a training needs to go on after the epoch that has just ended.

    Parameters
    ----------
    trainer, plan
        Lightning's, at the end of an epoch.
    curves
        Training curves so far.
    """
    numpy = np.random.get_state(legacy=False)
    version, python, gauss = random.getstate()
    draws = getattr(trainer.train_dataloader, "draws", None)
    return {
        "epoch": trainer.current_epoch + 1,
        "steps": steps_taken(trainer),
        "weights": plan.module.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "curves": curves,
        "draws": None if draws is None else torch.from_numpy(draws.copy()),
        "python": [version, list(python), gauss],
        "numpy": [torch.from_numpy(numpy["state"]["key"].astype(np.int64)), numpy["state"]["pos"]],
        "numpy_gauss": [numpy["has_gauss"], numpy["gauss"]],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def take_up(trainer: Any, plan: Any, halted: Halted) -> None:
    """Give a training, before its first epoch, the weights and the optimiser of a halted one, and its place in it."""
    plan.module.load_state_dict(halted["weights"])
    for optimizer, state in zip(trainer.optimizers, halted["optimizers"], strict=True):
        optimizer.load_state_dict(state)
    advance_to(trainer, halted["epoch"], halted["steps"])


def take_up_chance(trainer: Any, halted: Halted) -> None:
    """Let chance go on where it was, at the start of the first epoch: lightning has drawn from it since."""
    if halted["draws"] is not None:
        trainer.train_dataloader.draws[:] = halted["draws"].numpy()
    version, python, gauss = halted["python"]
    random.setstate((version, tuple(python), gauss))
    (key, position), (has_gauss, cached) = halted["numpy"], halted["numpy_gauss"]
    state = {"key": key.numpy().astype(np.uint32), "pos": position}
    np.random.set_state({"bit_generator": "MT19937", "state": state, "has_gauss": has_gauss, "gauss": cached})
    torch.set_rng_state(halted["torch"])
    if halted["cuda"]:
        torch.cuda.set_rng_state_all(halted["cuda"])
