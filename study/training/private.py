"""What training relies on beyond what its libraries promise to keep. No other module names it.

`tests/training/test_private.py` says of each thing what is relied on, so that a release which breaks it fails there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from scvi.dataloaders import AnnDataLoader, SemiSupervisedDataSplitter
from scvi.distributions import NegativeBinomial
from scvi.distributions._negative_binomial import log_nb_positive, log_zinb_positive
from scvi.model import SCANVI, SCVI
from scvi.module import VAE
from scvi.module._constants import MODULE_KEYS
from scvi.train import TrainingPlan
from scvi.train._callbacks import SubSampleLabels
from torch import Tensor
from torch.distributions import Distribution, Normal

from study.plan import Indices

__all__ = [
    "MODULE_KEYS",
    "SubSampleLabels",
    "advance_to",
    "epsilon_of",
    "label_order",
    "labelled_rows",
    "library_prior",
    "log_nb_positive",
    "log_zinb_positive",
    "steps_taken",
    "train_with",
    "unchecked_distributions",
]


def train_with(
    model: SCVI | SCANVI, plan: type[TrainingPlan], splitter: type[Any], loader: type[AnnDataLoader]
) -> None:
    """Let one model train by another plan, on cells from another splitter, and predict with another loader."""
    model._training_plan_cls = plan
    model._data_splitter_cls = splitter
    model._data_loader_cls = loader


def labelled_rows(splitter: SemiSupervisedDataSplitter) -> Indices:
    """Return the rows of all labelled cells, ascending."""
    rows: Indices = splitter._labeled_indices
    return rows


def label_order(classes: Sequence[str], unlabelled: str) -> list[str]:
    """Return classes in the order of their codes: sorted, but the last takes the place of the word for no label."""
    words = sorted((*classes, unlabelled))
    at = words.index(unlabelled)
    words[at], words[-1] = words[-1], words[at]
    return words[:-1]


def library_prior(module: VAE, batch_index: Tensor) -> Normal:
    """Return the prior of the logarithm of library sizes, of shape (n_cells, 1)."""
    mean, variance = module._compute_local_library_params(batch_index)
    return Normal(mean, variance.sqrt())


def epsilon_of(px: NegativeBinomial) -> float:
    """Return what a distribution adds to means and dispersions before a logarithm."""
    epsilon: float = px._eps
    return epsilon


@contextmanager
def unchecked_distributions() -> Iterator[None]:
    """Let torch's distributions take their arguments unchecked; afterwards as before."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


def steps_taken(trainer: Any) -> int:
    """Return the optimiser steps so far, at the end of an epoch.

    Plans that step by themselves are not counted in lightning's `global_step`.
    """
    return int(trainer.fit_loop.total_batch_idx) + 1


def advance_to(trainer: Any, epoch: int, steps: int) -> None:
    """Let lightning count from an epoch and a number of steps on, before its first epoch."""
    epochs, batches = trainer.fit_loop.epoch_progress, trainer.fit_loop.epoch_loop.batch_progress
    for count, reached in ((epochs.total, epoch), (epochs.current, epoch), (batches.total, steps)):
        count.ready = count.started = count.processed = count.completed = reached
