"""The layers of several like networks as one: every weight has the members in front, and products are batched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from scvi.nn import Encoder, FCLayers
from torch import Tensor
from torch.nn.functional import layer_norm, relu

Stack = dict[str, Tensor]
# From so many labels on BatchNorm is folded into the layer before it; with fewer its small operations cost more.
FOLDED = 8


@dataclass(frozen=True, eq=False)
class Net:
    """Layers on the cells of a minibatch; `share` has the shape (n_members, 1, n_cells)."""

    stack: Stack
    noise: Mapping[str, Tensor]
    share: Tensor
    sizes: Tensor

    def linear(self, name: str, x: Tensor) -> Tensor:
        """Return the outputs of a linear layer; x has the shape (n_members, n_labels or 1, n_cells, n_in)."""
        return _product(x, self.stack[f"{name}.weight"], self.stack[f"{name}.bias"])

    def two(self, one: str, other: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of two small linear layers on the same input, from one product."""
        weight, bias = (
            torch.cat((self.stack[f"{one}.{of}"], self.stack[f"{other}.{of}"]), dim=1) for of in ("weight", "bias")
        )
        first, second = _product(x, weight, bias).chunk(2, dim=-1)
        return first, second

    def encode(
        self, encoder: Encoder, name: str, x: Tensor, site: str = "", n_labels: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return mean and variance."""
        hidden = self.hidden(encoder.encoder, f"{name}.encoder", x, f"{site}{name}", n_labels)
        mean, raw = self.two(f"{name}.mean_encoder", f"{name}.var_encoder", hidden)
        return mean, encoder.var_activation(raw) + encoder.var_eps

    def hidden(
        self, layers: FCLayers, name: str, x: Tensor, site: str, n_labels: int = 0, batch: Tensor | None = None
    ) -> Tensor:
        """Run hidden layers, on each cell once per label where there are labels.

        Parameters
        ----------
        x
            Shape (n_members, 1 or n_labels, n_cells, n_in).
        site
            Where noise is drawn.
        batch
            The batch of each cell as a vector of 0 and 1, shape (n_members, 1, n_cells, n_batches).
        """
        for number, (_, batch_norm, layer, _, dropout) in enumerate(layers.fc_layers):
            of = f"{name}.fc_layers.Layer {number}"
            weight, bias = self.stack[f"{of}.0.weight"], self.stack[f"{of}.0.bias"]
            if n_labels and layers.inject_into_layer(number):
                weight, columns = weight[:, :, :-n_labels], weight[:, :, -n_labels:]
                of_label = bias.unsqueeze(1) + columns.transpose(1, 2)
                if batch_norm is not None and number == 0 and n_labels >= FOLDED:
                    x, batch_norm = self.folded(f"{of}.1", x, weight, of_label, batch_norm), None
                else:
                    x = _product(x, weight, None) + of_label.unsqueeze(2)
            else:
                if batch is not None and layers.inject_into_layer(number):
                    x = torch.cat((x, batch), dim=-1)
                x = _product(x, weight, bias)
            if batch_norm is not None:
                x = self.normalise(f"{of}.1", x, batch_norm)
            if layer is not None:
                x = layer_norm(x, x.shape[-1:], eps=layer.eps)
            x = relu(x)
            if dropout is not None:
                x = x * self.noise[f"{site}.{number}"]
        return x

    def normalise(self, name: str, x: Tensor, norm: torch.nn.BatchNorm1d) -> Tensor:
        """BatchNorm in training."""
        times = x.shape[1]
        share = (self.share.expand(-1, times, -1) / times).flatten(1)
        weight, bias = self.stack[f"{name}.weight"], self.stack[f"{name}.bias"]
        y, mean, variance = _BatchNorm.apply(x.flatten(1, 2), share, weight, bias, norm.eps)
        self.follow(name, mean, variance, times, norm)
        normalised: Tensor = y.view(x.shape)
        return normalised

    def folded(self, name: str, x: Tensor, weight: Tensor, of_label: Tensor, norm: torch.nn.BatchNorm1d) -> Tensor:
        """BatchNorm in training after a first layer over labels, as one linear layer; see `fast._linear_normalised`.

        Its statistics follow from the few inputs, by the sum of variances within and between labels, so the many
        outputs are written once.

        Parameters
        ----------
        x
            Shape (n_members, 1 or n_labels, n_cells, n_in).
        weight
            Shape (n_members, n_out, n_in).
        of_label
            What a label adds, shape (n_members, n_labels, n_out).
        """
        share = self.share.unsqueeze(-1)
        centre = (x * share).sum(2)
        within = x - centre.unsqueeze(2)
        flat = within.flatten(1, 2)
        covariance = torch.bmm((within * share).flatten(1, 2).transpose(1, 2), flat) / x.shape[1]
        means = torch.bmm(centre, weight.transpose(1, 2)) + of_label
        mean = means.mean(1, keepdim=True)
        between = means - mean
        variance = (torch.bmm(weight, covariance) * weight).sum(2) + between.square().mean(1)
        self.follow(name, mean.squeeze(1).detach(), variance.detach(), of_label.shape[1], norm)
        scale = self.stack[f"{name}.weight"] * torch.rsqrt(variance + norm.eps)
        shift = between * scale.unsqueeze(1) + self.stack[f"{name}.bias"].unsqueeze(1)
        return _product(within, weight * scale.unsqueeze(-1), None) + shift.unsqueeze(2)

    def follow(self, name: str, mean: Tensor, variance: Tensor, times: int, norm: torch.nn.BatchNorm1d) -> None:
        """Move running statistics, where each cell came so many times."""
        assert norm.momentum is not None
        n, momentum = (self.sizes * times).unsqueeze(1), norm.momentum
        self.stack[f"{name}.running_mean"].lerp_(mean, momentum)
        self.stack[f"{name}.running_var"].lerp_(variance * (n / (n - 1)), momentum)
        self.stack[f"{name}.num_batches_tracked"].add_(1)


class _BatchNorm(torch.autograd.Function):
    """BatchNorm of each member over the cells that count; also returns mean and variance, shape (n_members, n_out)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, share: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        average = share.unsqueeze(1)
        mean = torch.bmm(average, x)
        centred = x - mean
        variance = torch.bmm(average, centred.square())
        scale = torch.rsqrt(variance + eps)
        normal = centred.mul_(scale)
        weight = weight.unsqueeze(1)
        ctx.save_for_backward(normal, share, weight * scale)
        mean, variance = mean.squeeze(1), variance.squeeze(1)
        ctx.mark_non_differentiable(mean, variance)
        return torch.addcmul(bias.unsqueeze(1), normal, weight), mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        normal, share, scale = ctx.saved_tensors
        by_bias, by_weight = grad.sum(1), (grad * normal).sum(1)
        # What the mean and the variance pass on goes to a cell by its share in them.
        common = torch.addcmul(by_bias.unsqueeze(1), normal, by_weight.unsqueeze(1)).mul_(share.unsqueeze(-1))
        return torch.sub(grad, common).mul_(scale), None, by_weight, by_bias, None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return what linear layers make of x, of shape (n_members, n_labels or 1, n_cells, n_in)."""
    y: Tensor = _Linear.apply(x.flatten(1, 2), weight, bias)
    return y.view(*x.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    """A linear layer of each member, whose gradients lie in memory as the weights do: Adam's fused step asks for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        turned = weight.transpose(1, 2)
        return torch.bmm(x, turned) if bias is None else torch.baddbmm(bias.unsqueeze(1), x, turned)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_x = torch.bmm(grad, weight) if ctx.needs_input_grad[0] else None
        return by_x, torch.bmm(grad.transpose(1, 2), x), grad.sum(1) if ctx.biased else None
