"""The training step: scvi-tools' own computation without what it spends beside it; weights are the same bit for bit.

scvi-tools makes and logs metrics at every step, and none of them changes a weight. These plans only keep what a step
shows, and make the metrics of an epoch at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial
from scvi.model import SCANVI, SCVI
from scvi.module.base import LossOutput
from scvi.train import SemiSupervisedTrainingPlan, TrainingPlan

from study.training.batches import Batches, LabelledSplitter, Splitter
from study.training.fast import accelerate, fused_adam
from study.training.private import epsilon_of, log_nb_positive, log_zinb_positive, train_with, unchecked_distributions

BINS = 15  # of confidence, in the calibration error that scvi-tools logs


@dataclass
class Kept:
    """What the steps of an epoch show, a row each, in memory taken once.

    Small pieces taken at each step would lie between the large ones that it gives back, and keep them from being used
    again: memory would grow by a minibatch a step.

    Attributes
    ----------
    values
        Means and sums over the cells of a step, shape (n_steps, n_values).
    sure, right
        The largest probability of labelled cells, and whether it is that of their label, shape (n_steps, batch_size).
    cells, labelled
        Cells of each step, and labelled ones.
    """

    values: torch.Tensor
    sure: torch.Tensor
    right: torch.Tensor
    cells: list[int] = field(default_factory=list)
    labelled: list[int] = field(default_factory=list)

    @classmethod
    def room(cls, steps: int, values: int, labelled: int, device: torch.device) -> Kept:
        """Take the memory for an epoch."""
        kept, sure, right = (torch.zeros(steps, width, device=device) for width in (values, labelled, labelled))
        return cls(kept, sure, right)

    def add(self, cells: int, values: Sequence[torch.Tensor], sure: torch.Tensor, right: torch.Tensor) -> None:
        """Keep a step, where it is: nothing waits for the device."""
        row = len(self.cells)
        self.values[row] = torch.stack([value.detach() for value in values])
        self.sure[row, : sure.numel()] = sure
        self.right[row, : right.numel()] = right
        self.cells.append(cells)
        self.labelled.append(sure.numel())


class _Lean:
    """A plan that keeps what a step shows, and averages it once an epoch."""

    _kept: Kept | None = None
    _weight: torch.Tensor | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Lightning's own way around a step takes a millisecond.
        self.automatic_optimization = False

    def training_step(self, *args: Any, **kwargs: Any) -> None:
        """Take one step with scvi-tools' loss and optimiser."""
        optimizer = self.optimizers(use_pl_optimizer=False)  # type: ignore[attr-defined]
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def on_train_epoch_start(self) -> None:
        """Forget the last epoch, and make the KL weight of this one: it is the same for all its steps."""
        self._kept = None
        self._weight = None
        self._weight = self.kl_weight

    @property
    def kl_weight(self) -> Any:
        """Weight of the KL divergence."""
        return super().kl_weight if self._weight is None else self._weight  # type: ignore[misc]

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Log nothing; see `epoch_metrics`."""

    def compute_and_log_metrics(self, loss_output: LossOutput, metrics: Any, mode: str) -> None:
        """Keep what metrics are made of."""
        shown = [loss_output.loss, loss_output.reconstruction_loss_sum, loss_output.kl_local_sum]
        sure = right = shown[0].new_empty(0)
        if loss_output.logits is not None:
            shown.append(loss_output.classification_loss)
            logits = loss_output.logits.detach()
            shares = torch.softmax(logits, dim=1) if self.module.classifier.logits else logits  # type: ignore[attr-defined]
            sure, called = shares.max(dim=1)
            right = called == loss_output.true_labels.squeeze(-1)
        if self._kept is None:
            # The first minibatch of an epoch is never smaller than a later one.
            steps = self.trainer.num_training_batches  # type: ignore[attr-defined]
            self._kept = Kept.room(steps, len(shown), sure.numel(), sure.device)
        self._kept.add(loss_output.n_obs_minibatch, shown, sure, right)

    def epoch_metrics(self) -> dict[str, float]:
        """Return the metrics of the epoch."""
        assert self._kept is not None, "an epoch without a step"
        return epoch_metrics(self._kept)


def epoch_metrics(kept: Kept) -> dict[str, float]:
    """Return the metrics of an epoch, under the names that scvi-tools logs them by.

    As there, what a minibatch has a mean of is weighted by its cells; sums are kept in single precision.
    """
    cells = np.array(kept.cells, dtype=np.float32)
    loss, reconstruction, kl, *classification = kept.values[: cells.size].cpu().numpy().T
    sums = {
        "train_loss": loss * cells,
        "reconstruction_loss_train": reconstruction,
        "kl_local_train": kl,
        "kl_global_train": np.zeros_like(loss),
    }
    if classification:
        right, error = _calibration(kept)
        sums["train_classification_loss"] = classification[0] * cells
        sums["train_accuracy"] = sums["train_f1_score"] = right * cells
        sums["train_calibration_error"] = error * cells
    means = {name: _total(values) / cells.sum() for name, values in sums.items()}
    means["elbo_train"] = means["reconstruction_loss_train"] + means["kl_local_train"]
    return {name: float(value) for name, value in means.items()}


def _calibration(kept: Kept) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Share of labelled cells called right and expected calibration error (Naeini 2015), both per step."""
    sizes = torch.tensor(kept.labelled)
    there = torch.arange(kept.sure.shape[1]) < sizes[:, None]
    sure, right = kept.sure.cpu()[: len(sizes)][there], kept.right.cpu()[: len(sizes)][there]
    step = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    place = step * (BINS + 1) + torch.bucketize(sure, torch.linspace(0, 1, BINS + 1), right=True) - 1
    in_bin = torch.zeros(3, len(sizes) * (BINS + 1))
    for total, value in zip(in_bin, (torch.ones_like(sure), sure, right), strict=True):
        total.scatter_add_(0, place, value)
    count, confidence, correct = in_bin.view(3, len(sizes), -1)
    gap = (torch.nan_to_num(correct / count) - torch.nan_to_num(confidence / count)).abs()
    all_cells = count.sum(dim=1, keepdim=True)
    accuracy = correct.sum(dim=1) / all_cells.squeeze(1)
    error = (gap * count / all_cells).sum(dim=1)
    return accuracy.numpy(), error.numpy()


class LeanPlan(_Lean, TrainingPlan):  # type: ignore[misc]
    """scvi-tools' plan for scVI."""

    def epoch_metrics(self) -> dict[str, float]:
        """Return the metrics of the epoch, and the KL weight."""
        return super().epoch_metrics() | {"kl_weight": float(self.kl_weight)}


class LeanLabelledPlan(_Lean, SemiSupervisedTrainingPlan):  # type: ignore[misc]
    """scvi-tools' plan for scANVI."""


class _Fused:
    """A plan with the fast engine's optimiser."""

    def get_optimizer_creator(self) -> Callable[..., torch.optim.Optimizer]:
        """Return what makes the optimiser of some parameters."""
        return partial(fused_adam, lr=self.lr, eps=self.eps, weight_decay=self.weight_decay)  # type: ignore[attr-defined]


class FastPlan(_Fused, LeanPlan):
    """The plan for scVI with the fast engine."""


class FastLabelledPlan(_Fused, LeanLabelledPlan):
    """The plan for scANVI with the fast engine."""


def equip(model: SCVI | SCANVI, engine: str) -> None:
    """Give a new model the lean training step, `exact` or `fast`, and minibatches without detours."""
    labelled = isinstance(model, SCANVI)
    plans = {"exact": (LeanPlan, LeanLabelledPlan), "fast": (FastPlan, FastLabelledPlan)}[engine]
    train_with(model, plans[labelled], LabelledSplitter if labelled else Splitter, Batches)
    if engine == "fast":
        accelerate(model.module)


def _total(values: npt.NDArray[np.float32]) -> Any:
    """Sum as torchmetrics does, one step after another."""
    return np.cumsum(values, dtype=np.float32)[-1]


@contextmanager
def lean_likelihoods() -> Iterator[None]:
    """Let distributions take their arguments unchecked, and count likelihoods spare themselves the zeros.

    A check reads every value and, on a GPU, waits for it. Within this context only; it changes no value.
    """
    stock = {kind: kind.log_prob for kind in (NegativeBinomial, ZeroInflatedNegativeBinomial)}
    with unchecked_distributions():
        NegativeBinomial.log_prob = _log_nb
        ZeroInflatedNegativeBinomial.log_prob = _log_zinb
        try:
            yield
        finally:
            for kind, log_prob in stock.items():
                kind.log_prob = log_prob


def _log_nb(px: NegativeBinomial, counts: torch.Tensor) -> Any:
    lgamma = _lgamma_of(counts, px.theta)
    return log_nb_positive(counts, px.mu, px.theta, eps=epsilon_of(px), lgamma_fn=lgamma)


def _log_zinb(px: ZeroInflatedNegativeBinomial, counts: torch.Tensor) -> Any:
    return log_zinb_positive(counts, px.mu, px.theta, px.zi_logits, lgamma_fn=_lgamma_of(counts, px.theta))


def _lgamma_of(counts: torch.Tensor, theta: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return log-gamma for `theta`, `counts + theta` and `counts + 1`, where `theta` is the same for all cells.

    Most counts are 0. There each of the three has one value per gene, and log-gamma, or its derivative digamma, which
    is dearer still, is computed once for it. On a GPU, to find the other counts would be to wait for it.
    """
    if counts.device.type != "cpu" or not theta.requires_grad or theta.stride(0) != 0:
        return torch.lgamma
    place = torch.from_numpy(np.flatnonzero(counts.numpy()))  # several times faster than torch.nonzero
    of_gene = theta[0].detach()
    log_gamma: Callable[..., torch.Tensor] = _Lgamma.apply

    def lgamma(values: torch.Tensor) -> torch.Tensor:
        if values is theta:
            return log_gamma(values, of_gene, None)
        # Of the two that are left, only `counts + theta` is learned from.
        return log_gamma(values, of_gene if values.requires_grad else torch.ones(()), place)

    return lgamma


class _Lgamma(torch.autograd.Function):
    """Log-gamma of values that are `usual`, but for some places."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, usual: torch.Tensor, place: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(values, usual, place)
        return _where_needed(torch.lgamma, values, usual, place)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradient * _where_needed(torch.digamma, *ctx.saved_tensors), None, None


def _where_needed(
    function: Callable[[torch.Tensor], torch.Tensor],
    values: torch.Tensor,
    usual: torch.Tensor,
    place: torch.Tensor | None,
) -> torch.Tensor:
    made = function(usual).expand_as(values)
    if place is None:
        return made
    return (
        made.clone(memory_format=torch.contiguous_format)
        .view(-1)
        .index_copy_(0, place, function(values.view(-1)[place]))
        .view_as(values)
    )
