"""The mathematics of the fast engine: scvi-tools' training loss with fewer operations, rounded otherwise.

Three identities carry it. Counts that are 0 need no log-gamma (see `likelihood`). A layer that is given each cell once
per label computes the part of the cell once, and adds the column of the label. And BatchNorm after such a layer is
again a linear layer: its statistics follow from the small input, by the sum of variances within and between labels.
Random numbers are drawn as scvi-tools draws them, in order and shape, so equal seeds give equal losses and gradients up
to rounding. Out of training everything is scvi-tools' own code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from scvi import REGISTRY_KEYS
from scvi.module import SCANVAE, VAE
from scvi.module.base import LossOutput
from scvi.nn import FCLayers
from torch import Tensor, nn
from torch.distributions import Normal
from torch.distributions import kl_divergence as kl
from torch.nn import functional

from study.training.likelihood import CountLikelihood
from study.training.private import MODULE_KEYS, library_prior


def accelerate(module: VAE | SCANVAE) -> None:
    """Give a new module the faster training loss, in place; parameters and their names stay.

    Notes
    -----
    The module becomes an instance of a subclass, so copying and saving it work as before. It differs in training mode
    alone. Not covered, and left to scvi-tools: `dispersion="gene-label"`, `gene_likelihood="normal"`, batch embeddings,
    size factors and covariates other than the batch (reconstruction loss); a single label, and extra payloads for
    autotune (loss of scANVI).
    """
    module.__class__ = {VAE: _FastVAE, SCANVAE: _FastSCANVAE}[type(module)]


def fused_adam(parameters: Iterable[Tensor], lr: float, eps: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return Adam as scvi-tools builds it, with its step in one fused kernel."""
    return torch.optim.Adam(parameters, lr=lr, eps=eps, weight_decay=weight_decay, fused=True)


class _FastGenerative:
    """A decoder that, in training, leaves the likelihood of the counts to be computed at once."""

    def generative(
        self: Any, z: Tensor, library: Tensor, batch_index: Tensor, y: Tensor | None = None, **others: Any
    ) -> dict[str, Any]:
        if not self.training or not _covered(self) or any(value is not None for value in others.values()):
            stock: dict[str, Any] = VAE.generative(self, z, library, batch_index, y=y, **others)
            return stock
        hidden = self.decoder.px_decoder(z, batch_index)
        logits = self.decoder.px_scale_decoder[0](hidden)
        if self.gene_likelihood == "poisson":
            px = CountLikelihood(logits, library)
        else:
            dropout = self.decoder.px_dropout_decoder(hidden) if self.gene_likelihood == "zinb" else None
            px = CountLikelihood(logits, library, _log_dispersion(self, hidden, batch_index), dropout)
        pl = None if self.use_observed_lib_size else library_prior(self, batch_index)
        pz = Normal(torch.zeros_like(z), torch.ones_like(z))
        return {MODULE_KEYS.PX_KEY: px, MODULE_KEYS.PL_KEY: pl, MODULE_KEYS.PZ_KEY: pz}


class _FastVAE(_FastGenerative, VAE):  # type: ignore[misc]
    """scVI's module."""


class _FastSCANVAE(_FastGenerative, SCANVAE):  # type: ignore[misc]
    """scANVI's module, whose networks over all labels do not repeat themselves."""

    def loss(
        self: Any,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Any],
        generative_ouputs: dict[str, Any],
        kl_weight: float | Tensor = 1.0,
        labelled_tensors: dict[str, Tensor] | None = None,
        classification_ratio: float | None = None,
    ) -> LossOutput:
        """Compute the loss, as in `SCANVAE.loss`."""
        arguments = (tensors, inference_outputs, generative_ouputs, kl_weight, labelled_tensors, classification_ratio)
        if not self.training or self.n_labels < 2 or self.extra_payload_autotune:
            return super().loss(*arguments)
        z1 = inference_outputs["z"]
        kl_z2, log_z1 = _over_labels(self, z1)
        reconstruction = -generative_ouputs["px"].log_prob(tensors[REGISTRY_KEYS.X_KEY]).sum(-1)
        probs = self.classifier(z1)
        if self.classifier.logits:
            probs = functional.softmax(probs, dim=-1)
        reconstruction = reconstruction + inference_outputs["qz"].log_prob(z1).sum(-1) - (log_z1 * probs).sum(-1)
        kl_local = (kl_z2 * probs + probs * (_log(probs) - _log(self.y_prior / self.y_prior.sum()))).sum(-1)
        if not self.use_observed_lib_size:
            kl_local = kl_local + kl(inference_outputs["ql"], generative_ouputs["pl"]).sum(-1)
        loss = torch.mean(reconstruction + kl_local * kl_weight)
        classification: dict[str, Any] = {}
        if labelled_tensors is not None:
            cross_entropy, labels, logits = self.classification_loss(labelled_tensors)
            loss = loss + cross_entropy * classification_ratio
            classification = {"classification_loss": cross_entropy, "true_labels": labels, "logits": logits}
        return LossOutput(loss=loss, reconstruction_loss=reconstruction, kl_local=kl_local, **classification)


def _over_labels(module: Any, z1: Tensor) -> tuple[Tensor, Tensor]:
    """Return KL(q(z2 | z1, y) || N(0, 1)) and log p(z1 | z2, y), both of shape (n_cells, n_labels)."""
    encoder, decoder = module.encoder_z2_z1, module.decoder_z1_z2
    mean, raw = _two_heads(
        _each_label(encoder.encoder, z1.unsqueeze(0), module.n_labels), encoder.mean_encoder, encoder.var_encoder
    )
    variance = encoder.var_activation(raw) + encoder.var_eps
    z2 = mean + variance.sqrt() * torch.randn(mean.shape, dtype=mean.dtype, device=mean.device)
    kl_z2 = 0.5 * (variance + mean.square() - variance.log() - 1).sum(-1)
    mean, log_variance = _two_heads(
        _each_label(decoder.decoder, z2, module.n_labels), decoder.mean_decoder, decoder.var_decoder
    )
    log_z1 = -0.5 * ((z1 - mean).square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi)).sum(-1)
    return kl_z2.t(), log_z1.t()


def _each_label(layers: FCLayers, x: Tensor, n_labels: int) -> Tensor:
    """Run layers on each cell once per label.

    Parameters
    ----------
    layers
        Built with `n_cat_list=[n_labels]`.
    x
        Shape (n_labels, n_cells, n_in), or (1, n_cells, n_in) where it is the same for all labels.

    Returns
    -------
    Shape (n_labels, n_cells, n_out).
    """
    for number, (linear, batch_norm, layer_norm, activation, dropout) in enumerate(layers.fc_layers):
        weight, of_label = linear.weight, linear.bias.expand(n_labels, -1)
        if layers.inject_into_layer(number):
            weight, columns = weight.split([x.shape[-1], n_labels], dim=1)
            # In memory as in shape: sums with it inherit that, and dropout draws in the order of memory.
            of_label = (of_label + columns.t()).contiguous()
        # Only the first input is smaller than the output, which makes its variances the cheaper ones.
        if batch_norm is not None and batch_norm.training and number == 0:
            x = _linear_normalised(x, weight, of_label, batch_norm)
        else:
            x = _plus(functional.linear(x, weight), of_label)
            x = x if batch_norm is None else batch_norm(x.flatten(0, 1)).view(x.shape)
        x = x if layer_norm is None else layer_norm(x)
        if type(activation) is nn.ReLU:
            x = _relu_dropout(x, dropout)
        else:
            for part in (activation, dropout):
                x = x if part is None else part(x)
    return x


def _plus(of_cells: Tensor, of_label: Tensor) -> Tensor:
    """Return the sum for each label and cell; written over `of_cells` where that has room for it."""
    of_label = of_label.unsqueeze(1)
    return of_cells + of_label if of_cells.shape[0] < of_label.shape[0] else of_cells.add_(of_label)


def _relu_dropout(x: Tensor, dropout: nn.Dropout | None) -> Tensor:
    """Return ``dropout(relu(x))``, written over `x`."""
    if dropout is None or not dropout.training:
        return functional.relu_(x)
    found: Tensor = _ReluDropout.apply(x, 1 - dropout.p)
    return found


class _ReluDropout(torch.autograd.Function):
    """ReLU and dropout as one step each way: what is positive after both is what both let through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: float) -> Tensor:
        kept = torch.empty_like(x).bernoulli_(keep)
        ctx.mark_dirty(x)
        ctx.keep = keep
        x.relu_().mul_(kept).mul_(1 / keep)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(grad, y, 0).mul_(1 / ctx.keep), None


def _linear_normalised(x: Tensor, weight: Tensor, of_label: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    """Return ``norm(x @ weight.T + of_label)`` in training mode as one linear layer.

    Parameters
    ----------
    x
        Shape (n_labels or 1, n_cells, n_in).
    weight
        Shape (n_out, n_in).
    of_label
        Shape (n_labels, n_out).

    Notes
    -----
    The variance of an output is that within labels, ``w' C w`` with C the pooled covariance of x within labels, and
    that of the label means.
    """
    centre = x.mean(1)
    within = x - centre.unsqueeze(1)
    flat = within.flatten(0, 1)
    covariance = flat.t() @ flat / flat.shape[0]
    means = functional.linear(centre, weight) + of_label
    mean = means.mean(0)
    between = means - mean
    variance = (weight @ covariance * weight).sum(1) + between.square().mean(0)
    _follow(norm, mean.detach(), variance.detach(), between.shape[0] * x.shape[1])
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return _plus(functional.linear(within, weight * scale.unsqueeze(1)), between * scale + norm.bias)


def _follow(norm: Any, mean: Tensor, variance: Tensor, n: int) -> None:
    """Move the running statistics as BatchNorm does in training."""
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (n / (n - 1)), norm.momentum)


def _two_heads(hidden: Tensor, first: nn.Linear, second: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return the outputs of two linear layers of equal size on the same input, from one product."""
    weight, bias = torch.cat((first.weight, second.weight)), torch.cat((first.bias, second.bias))
    both = functional.linear(hidden, weight, bias)
    one, other = both.chunk(2, dim=-1)
    return one, other


def _log(probs: Tensor) -> Tensor:
    """The logarithm of probabilities as `torch.distributions` takes it."""
    tiny = torch.finfo(probs.dtype).eps
    return probs.clamp(tiny, 1 - tiny).log()


def _covered(module: VAE) -> bool:
    """Whether the reconstruction loss is computed here."""
    return (
        module.gene_likelihood in ("zinb", "nb", "poisson")
        and module.dispersion != "gene-label"
        and module.batch_representation == "one-hot"
        and not module.use_size_factor_key
    )


def _log_dispersion(module: VAE, hidden: Tensor, batch_index: Tensor) -> Tensor:
    """Return the logarithm of theta, shape (n_genes,) or (n_cells, n_genes)."""
    if module.dispersion == "gene-cell":
        r: Tensor = module.decoder.px_r_decoder(hidden)
    elif module.dispersion == "gene-batch":
        r = module.px_r.t()[batch_index.squeeze(-1)]
    else:
        r = module.px_r
    return r
