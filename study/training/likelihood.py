"""The likelihood of counts for the fast engine: value and derivatives at once, log-gammas at non-zero counts alone.

The log-gamma terms of a count distribution vanish where a count is 0, and most counts are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# As in scvi.distributions: added to means and dispersions before a logarithm.
EPS = 1e-8


@dataclass(frozen=True)
class CountLikelihood:
    """The likelihood of counts, not computed before it is asked for.

    Attributes
    ----------
    logits
        Of the proportions of genes, shape (n_cells, n_genes).
    library
        Logarithm of the library sizes, shape (n_cells, 1).
    r
        Logarithm of the inverse dispersion, shape (n_genes,) or (n_cells, n_genes); None for Poisson counts.
    dropout
        Logits of zero inflation, shape (n_cells, n_genes); None where there is none.
    """

    logits: Tensor
    library: Tensor
    r: Tensor | None = None
    dropout: Tensor | None = None

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the logarithm of the likelihood of cells, shape (n_cells, 1): the sum over genes is already taken."""
        theta = None if self.r is None else self.r.exp()
        arguments = (x, self.logits, self.library, theta, self.dropout)
        found: Tensor = _LogLikelihood.apply(*arguments)
        return found


class _LogLikelihood(torch.autograd.Function):
    """Log-likelihood of cells and all its derivatives in one go, log-gammas at the non-zero counts alone."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, logits: Tensor, library: Tensor, theta: Tensor | None, dropout: Tensor | None
    ) -> Tensor:
        at = _counted(x)
        mu = logits.softmax(-1).mul_(library.exp())
        if theta is None:
            total, taken = _poisson(x, mu, at)
            by_theta = by_dropout = None
        else:
            total, taken, by_theta, by_dropout = _negative_binomial(x, mu, theta, dropout, at)
        # `taken` is minus the derivative by log mu. The softmax leaves out what the genes of a cell have in common.
        common = taken.sum(1, keepdim=True)
        by_logits = mu.mul_(common * (-library).exp()).sub_(taken)
        ctx.save_for_backward(by_logits, -common, by_theta, by_dropout)
        ctx.per_gene = theta is not None and theta.ndim == 1
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        by_logits, by_library, by_theta, by_dropout = ctx.saved_tensors
        theta = None
        if by_theta is not None:
            theta = grad.squeeze(1) @ by_theta if ctx.per_gene else by_theta * grad
        return None, by_logits * grad, by_library * grad, theta, None if by_dropout is None else by_dropout * grad


def _counted(x: Tensor) -> Tensor:
    """Return the flat positions of non-zero counts."""
    if x.is_cpu:  # numpy finds them several times faster
        return torch.from_numpy(np.flatnonzero(x.numpy() > 0))
    return x.reshape(-1).nonzero().squeeze(1)


def _poisson(x: Tensor, mu: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-likelihood of cells, shape (n_cells, 1), and minus its derivative by log mu."""
    counts = x.reshape(-1).index_select(0, at)
    entries = mu.neg()
    of_counts = mu.view(-1).index_select(0, at).log_().mul_(counts).sub_(torch.lgamma(counts + 1))
    entries.view(-1).scatter_add_(0, at, of_counts)
    return entries.sum(1, keepdim=True), mu - x


def _negative_binomial(
    x: Tensor, mu: Tensor, theta: Tensor, dropout: Tensor | None, at: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return the log-likelihood of cells, minus its derivative by log mu, and those by theta and by dropout.

    Notes
    -----
    Without inflation a zero has the probability z = (theta / (theta + mu))^theta, with it P = p + (1 - p) z, where
    p = sigmoid(dropout). u, the derivative by log z, is (1 - p) z / P at a zero and 1 at a count. The small numbers
    that scvi-tools adds to means and dispersions are kept. Buffers are written over: at these sizes a new one costs
    more than the arithmetic in it.
    """
    gene = at % x.shape[1] if theta.ndim == 1 else None

    def pick(values: Tensor) -> Tensor:
        return values.reshape(-1).index_select(0, at if gene is None or values.ndim == 2 else gene)

    def of_theta(function: Callable[[Tensor], Tensor]) -> Tensor:
        return function(pick(theta)) if gene is None else pick(function(theta))

    counts, mu_at, theta_at = pick(x), pick(mu), pick(theta)
    safe = theta + EPS
    total = mu + safe
    log_ratio = total.log()
    of_counts = (mu_at + EPS).log_().sub_(pick(log_ratio)).mul_(counts)
    of_counts.add_(torch.lgamma(counts + theta_at)).sub_(of_theta(torch.lgamma)).sub_(torch.lgamma(counts + 1))
    torch.sub(safe.log(), log_ratio, out=log_ratio)
    log_zero = log_ratio * theta
    by_theta = log_ratio.add_(theta / safe)
    if dropout is None:
        entries, by_dropout = log_zero, None
        entries.view(-1).scatter_add_(0, at, of_counts)
        taken = (x + theta).div_(total)
    else:
        of_counts.add_(pick(log_zero)).add_(functional.logsigmoid(-pick(dropout)))
        inflated = dropout.sigmoid()
        by_dropout = 1 - inflated
        u = log_zero.exp_().mul_(by_dropout)
        zero = inflated.add_(u).clamp_(min=torch.finfo(u.dtype).tiny)
        u.div_(zero).view(-1).index_fill_(0, at, 1)
        entries = zero.log_()
        entries.view(-1).scatter_(0, at, of_counts)
        by_dropout.sub_(u)
        by_theta.mul_(u)
        taken = u.mul_(theta).add_(x).div_(total)
    by_theta.sub_(taken)
    by_theta.view(-1).scatter_add_(0, at, torch.digamma(counts + theta_at).sub_(of_theta(torch.digamma)))
    taken.mul_(mu).view(-1).scatter_add_(0, at, mu_at.div(mu_at + EPS).mul_(counts).neg_())
    return entries.sum(1, keepdim=True), taken, by_theta, by_dropout
