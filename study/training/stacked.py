"""The losses of several like stages at once, each that of scvi-tools' own module.

Nothing is ever summed over members but their losses, so what one of them computes, and learns, is the same beside any
others. Minibatches have one shape: rows that do not count have no share in a mean, BatchNorm's included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scvi.module import SCANVAE, VAE
from scvi.nn import FCLayers
from torch import Tensor

from study.training.dense import log_likelihood
from study.training.layers import Net, Stack

LOG_2_PI = math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class Minibatch:
    """Cells of each member.

    Attributes
    ----------
    x
        Counts, shape (n_members, n_cells, n_genes).
    codes
        Their batches, or labels where labelled, shape (n_members, n_cells).
    share
        Weight of each cell in a mean, 0 for rows that do not count, shape (n_members, n_cells).
    sizes
        How many count, shape (n_members,), of the type of weights.
    """

    x: Tensor
    codes: Tensor
    share: Tensor
    sizes: Tensor


@dataclass(frozen=True, eq=False)
class Shown:
    """What a step shows of each member.

    Attributes
    ----------
    loss
        Shape (n_members,).
    values
        The loss, the sums over cells of reconstruction loss and KL divergence, and the classification loss where
        there is one, shape (n_members, n_values), without gradients.
    sure, right
        The largest probability of labelled cells, and whether it is that of their label, shape (n_members, n_labelled).
    """

    loss: Tensor
    values: Tensor
    sure: Tensor | None = None
    right: Tensor | None = None


def minibatch(x: Tensor, codes: Tensor, sizes: Tensor) -> Minibatch:
    """Make a minibatch of whose rows the first `sizes` count."""
    counted = sizes.to(x.dtype)
    there = torch.arange(codes.shape[1], device=codes.device) < sizes.unsqueeze(1)
    return Minibatch(x, codes, there / counted.unsqueeze(1), counted)


def check_alike(modules: Sequence[VAE]) -> None:
    """Raise `ValueError` unless modules have equal shapes, and a loss that is computed here."""
    first = modules[0]
    if type(first) not in (VAE, SCANVAE):
        raise ValueError(f"no stage of scvi-tools' own: {type(first).__name__}")
    for module in modules:
        if type(module) is not type(first) or _shape_of(module) != _shape_of(first):
            raise ValueError("stages that train together must have networks of equal shapes")
    if (
        first.dispersion != "gene"
        or first.gene_likelihood not in ("zinb", "nb", "poisson")
        or first.latent_distribution != "normal"
        or not first.log_variational
        or first.encode_covariates
        or first.batch_representation != "one-hot"
        or first.use_size_factor_key
        or not first.use_observed_lib_size
        or any(
            isinstance(part, FCLayers) and any(layer[3] is None for layer in part.fc_layers) for part in first.modules()
        )
        or (isinstance(first, SCANVAE) and (first.n_labels < 2 or first.labels_groups is not None))
    ):
        raise ValueError("stages with these settings cannot train together")


def _shape_of(module: VAE) -> tuple[Any, ...]:
    shapes = tuple((name, tuple(value.shape), value.dtype) for name, value in module.state_dict().items())
    # What has no weights shows in their text: LayerNorm, activations, and that there is dropout, at whatever rate.
    parts = tuple(type(part).__name__ for part in module.modules())
    return shapes, parts, module.gene_likelihood, module.dispersion


def learned_names(template: VAE) -> list[str]:
    """Return the names of the weights that take part in the loss: Adam would let others decay."""
    idle = ["l_encoder.", "decoder.px_r_decoder."]
    if template.gene_likelihood != "zinb":
        idle.append("decoder.px_dropout_decoder.")
    if template.gene_likelihood == "poisson":
        idle.append("px_r")
    named = template.named_parameters()
    return [name for name, weight in named if weight.requires_grad and not name.startswith(tuple(idle))]


def losses(
    template: VAE,
    stack: Stack,
    joint: Minibatch,
    labelled: Minibatch | None,
    noise: Mapping[str, Tensor],
    kl_weight: Tensor,
    classification_ratio: Tensor,
) -> Shown:
    """Compute the loss of each member, and move BatchNorm's running statistics.

    Parameters
    ----------
    template
        A module of the members' shapes, whose weights are not used.
    stack
        Weights and buffers of all members, by the names of `state_dict`.
    joint, labelled
        Minibatches; the second for scANVI.
    noise
        By site, see `study.training.noise`, members in front; what dropout keeps is divided by how much it keeps.
    kl_weight
        Shape () or (n_members,).
    classification_ratio
        Shape (n_members,).
    """
    net = Net(stack, noise, joint.share.unsqueeze(1), joint.sizes)
    mean, variance = net.encode(template.z_encoder, "z_encoder", torch.log1p(joint.x).unsqueeze(1))
    epsilon = noise["z"]
    z = mean + variance.sqrt() * epsilon
    reconstruction = -_log_counts(template, net, joint, z)
    if not isinstance(template, SCANVAE):
        kl = _kl_normal(mean, variance).squeeze(1)
        loss = ((reconstruction + kl_weight.view(-1, 1) * kl) * joint.share).sum(1)
        return Shown(loss, _summed(joint, loss, reconstruction, kl))
    assert labelled is not None, "scANVI learns from labelled cells"
    kl_z2, log_z1 = _over_labels(template, net, z)
    probs = _classify(template, net, z, "").softmax(-1)
    # z is the mean and so many standard deviations.
    log_q = -0.5 * (epsilon.square() + variance.log() + LOG_2_PI).sum(-1).squeeze(1)
    reconstruction = reconstruction + log_q - (log_z1 * probs).sum(-1)
    prior = stack["y_prior"]
    kl = (probs * (kl_z2 + _log(probs) - _log(prior / prior.sum(-1, keepdim=True)))).sum(-1)
    loss = ((reconstruction + kl_weight.view(-1, 1) * kl) * joint.share).sum(1)
    known = Net(stack, noise, labelled.share.unsqueeze(1), labelled.sizes)
    centre, _ = known.encode(template.z_encoder, "z_encoder", torch.log1p(labelled.x).unsqueeze(1), "labelled ")
    logits = _classify(template, known, centre, "labelled ")
    of_label = logits.log_softmax(-1).gather(-1, labelled.codes.unsqueeze(-1)).squeeze(-1)
    cross_entropy = -(of_label * labelled.share).sum(1)
    sure, called = logits.detach().softmax(-1).max(-1)
    values = _summed(joint, loss + cross_entropy * classification_ratio, reconstruction, kl, cross_entropy)
    return Shown(loss + cross_entropy * classification_ratio, values, sure, called == labelled.codes)


def _log_counts(template: VAE, net: Net, joint: Minibatch, z: Tensor) -> Tensor:
    """Return the log-likelihood of cells given z, shape (n_members, n_cells)."""
    batch = None
    if template.n_batch > 1:
        codes = torch.arange(template.n_batch, device=z.device)
        batch = (joint.codes.unsqueeze(-1) == codes).to(z.dtype).unsqueeze(1)
    hidden = net.hidden(template.decoder.px_decoder, "decoder.px_decoder", z, "", batch=batch)
    logits = net.linear("decoder.px_scale_decoder.0", hidden).squeeze(1)
    library = joint.x.sum(-1, keepdim=True).log()
    if template.gene_likelihood == "poisson":
        return log_likelihood(joint.x, logits, library, None, None)
    dropout = None
    if template.gene_likelihood == "zinb":
        dropout = net.linear("decoder.px_dropout_decoder", hidden).squeeze(1)
    return log_likelihood(joint.x, logits, library, net.stack["px_r"], dropout)


def _over_labels(template: SCANVAE, net: Net, z1: Tensor) -> tuple[Tensor, Tensor]:
    """Return KL(q(z2 | z1, y) || N(0, 1)) and log p(z1 | z2, y), both of shape (n_members, n_cells, n_labels)."""
    mean, variance = net.encode(template.encoder_z2_z1, "encoder_z2_z1", z1, n_labels=template.n_labels)
    z2 = mean + variance.sqrt() * net.noise["z2"]
    kl = _kl_normal(mean, variance)
    name = "decoder_z1_z2"
    hidden = net.hidden(template.decoder_z1_z2.decoder, f"{name}.decoder", z2, "", template.n_labels)
    centre, log_variance = net.two(f"{name}.mean_decoder", f"{name}.var_decoder", hidden)
    log_z1 = -0.5 * ((z1 - centre).square() * (-log_variance).exp() + log_variance + LOG_2_PI).sum(-1)
    return kl.transpose(1, 2), log_z1.transpose(1, 2)


def _classify(template: SCANVAE, net: Net, z: Tensor, site: str) -> Tensor:
    """Return logits, shape (n_members, n_cells, n_labels)."""
    for number, layers in enumerate(template.classifier.classifier):
        name = f"classifier.classifier.{number}"
        linear = isinstance(layers, torch.nn.Linear)
        z = net.linear(name, z) if linear else net.hidden(layers, name, z, f"{site}classifier")
    return z.squeeze(1)


def _kl_normal(mean: Tensor, variance: Tensor) -> Tensor:
    """Return the KL divergence from the standard normal distribution."""
    return 0.5 * (variance + mean.square() - variance.log() - 1).sum(-1)


def _log(probs: Tensor) -> Tensor:
    """The logarithm of probabilities as `torch.distributions` takes it."""
    tiny = torch.finfo(probs.dtype).eps
    return probs.clamp(tiny, 1 - tiny).log()


def _summed(joint: Minibatch, loss: Tensor, reconstruction: Tensor, kl: Tensor, *others: Tensor) -> Tensor:
    sums = [(value * joint.share).sum(1) * joint.sizes for value in (reconstruction, kl)]
    return torch.stack([loss, *sums, *others], dim=1).detach()
