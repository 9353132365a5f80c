"""The likelihood of counts for many stages at once: value and all derivatives together, at every count alike.

To single out the counts above 0, as `likelihood` does, is to wait for a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from study.training.likelihood import EPS


def log_likelihood(x: Tensor, logits: Tensor, library: Tensor, r: Tensor | None, dropout: Tensor | None) -> Tensor:
    """Return the logarithm of the likelihood of cells, summed over genes, shape (n_members, n_cells).

    Parameters
    ----------
    x
        Counts, shape (n_members, n_cells, n_genes).
    logits
        Of the proportions of genes, shaped as `x`.
    library
        Logarithm of the library sizes, shape (n_members, n_cells, 1); nothing is learned from it.
    r
        Logarithm of the inverse dispersion, shape (n_members, n_genes); None for Poisson counts.
    dropout
        Logits of zero inflation, shaped as `x`; None where there is none.
    """
    found: Tensor = _LogLikelihood.apply(x, logits, library, r, dropout)
    return found


class _LogLikelihood(torch.autograd.Function):
    """Log-likelihood and derivatives by logits, r and dropout."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, logits: Tensor, library: Tensor, r: Tensor | None, dropout: Tensor | None
    ) -> Tensor:
        share = logits.softmax(-1)
        mu = share * library.exp()
        by_r = by_dropout = None
        if r is None:
            entries = torch.xlogy(x, mu).sub_(mu).sub_(torch.lgamma(x + 1))
            by_log_mu = x - mu
        else:
            entries, by_log_mu, by_r, by_dropout = negative_binomial(x, mu, r.exp().unsqueeze(1), dropout)
        # The softmax leaves out what the genes of a cell have in common.
        by_logits = torch.addcmul(by_log_mu, share, by_log_mu.sum(-1, keepdim=True), value=-1)
        ctx.save_for_backward(by_logits, by_r, by_dropout)
        return entries.sum(-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        by_logits, by_r, by_dropout = ctx.saved_tensors
        of_r = None if by_r is None else torch.bmm(grad.unsqueeze(1), by_r).squeeze(1)
        grad = grad.unsqueeze(-1)
        return None, by_logits * grad, None, of_r, None if by_dropout is None else by_dropout * grad


def negative_binomial(
    x: Tensor, mu: Tensor, theta: Tensor, dropout: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return the log-likelihood of each count, and its derivatives by log mu, log theta and dropout.

    Notes
    -----
    As in `likelihood`, u is the derivative by the logarithm of the probability of a zero without inflation: 1 at a
    count and where nothing inflates. The small numbers that scvi-tools adds before logarithms are kept.
    """
    safe = theta + EPS
    total = mu + safe
    log_ratio = safe.log() - total.log()
    log_zero = theta * log_ratio
    more = x + theta
    # Where x is 0 all but the first of these is 0.
    entries = (mu + EPS).log_().sub_(total.log()).mul_(x).add_(log_zero)
    entries.add_(torch.lgamma(more)).sub_(torch.lgamma(theta)).sub_(torch.lgamma(x + 1))
    by_theta = log_ratio.add_(theta / safe)
    by_dropout = None
    if dropout is None:
        taken = more.div(total)
    else:
        inflated = log_zero.sub_(dropout)  # log(z (1 - p) / p), where z is the probability of a zero
        counted = x > 0
        u = inflated.sigmoid().masked_fill_(counted, 1.0)
        entries = torch.where(counted, entries + logsigmoid(-dropout), softplus(inflated) + logsigmoid(dropout))
        by_dropout = torch.sigmoid(-dropout).sub_(u)
        by_theta = by_theta.mul_(u)
        taken = u.mul_(theta).add_(x).div_(total)
    by_theta.sub_(taken).add_(torch.digamma(more)).sub_(torch.digamma(theta)).mul_(theta)
    by_log_mu = mu * (x / (mu + EPS) - taken)
    return entries, by_log_mu, by_theta, by_dropout
