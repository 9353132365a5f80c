"""What the steps of members draw: normal numbers, and what dropout keeps, from a generator of each.

A member draws all of a step at once, so what it draws depends on its seed and its shapes alone. A generator that is
registered with a CUDA graph goes on when the graph is played again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scvi.module import SCANVAE, VAE
from scvi.nn import FCLayers
from torch import Tensor, nn


def noise_shapes(template: VAE, width: int) -> tuple[dict[str, tuple[int, ...]], ...]:
    """Return the shapes of what a step draws for one member, by site: cells kept by dropout, and normal numbers."""
    one: list[tuple[str, FCLayers, tuple[int, ...]]] = [("z_encoder", template.z_encoder.encoder, (1, width))]
    normal: dict[str, tuple[int, ...]] = {"z": (1, width, template.n_latent)}
    if isinstance(template, SCANVAE):
        one += [
            ("encoder_z2_z1", template.encoder_z2_z1.encoder, (template.n_labels, width)),
            ("labelled z_encoder", template.z_encoder.encoder, (1, width)),
        ]
        normal["z2"] = (template.n_labels, width, template.n_latent)
        if isinstance(template.classifier.classifier[0], FCLayers):
            one.append(("classifier", template.classifier.classifier[0], (1, width)))
            one.append(("labelled classifier", template.classifier.classifier[0], (1, width)))
    keep = {
        f"{site}.{number}": (*shape, linear.out_features)
        for site, layers, shape in one
        for number, (linear, _, _, _, dropout) in enumerate(layers.fc_layers)
        if dropout is not None
    }
    return keep, normal


class Noise:
    """What the steps of each member draw, by site, from a generator of its own.

    Attributes
    ----------
    sites
        Members in front; what dropout keeps is divided by how much it keeps.
    """

    def __init__(self, modules: Sequence[VAE], seeds: Sequence[int], width: int, device: torch.device) -> None:
        dtype = next(modules[0].parameters()).dtype
        self.seeds = seeds
        self.kept = [1 - dropout_of(module) for module in modules]
        self.generators = [torch.Generator(device) for _ in modules]
        self.seed()
        self.sites: dict[str, Tensor] = {}
        shapes = noise_shapes(modules[0], width)
        self.keep, self.normal = (self._room(one, len(modules), dtype, device) for one in shapes)
        self.scale = 1 / torch.tensor(self.kept, dtype=dtype, device=device).unsqueeze(1)

    def _room(
        self, shapes: Mapping[str, tuple[int, ...]], members: int, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        ends = np.cumsum([math.prod(shape) for shape in shapes.values()], dtype=int).tolist()
        room = torch.empty(members, ends[-1] if ends else 0, dtype=dtype, device=device)
        for (site, shape), start, end in zip(shapes.items(), [0, *ends], ends, strict=False):
            self.sites[site] = room[:, start:end].view(members, *shape)
        return room

    def seed(self) -> None:
        """Start again."""
        for generator, seed in zip(self.generators, self.seeds, strict=True):
            generator.manual_seed(seed)

    def draw(self) -> None:
        """Draw what a step needs."""
        for member, (generator, kept) in enumerate(zip(self.generators, self.kept, strict=True)):
            self.normal[member].normal_(generator=generator)
            if self.keep.numel():
                self.keep[member].bernoulli_(kept, generator=generator)
        self.keep.mul_(self.scale)


def dropout_of(module: VAE) -> float:
    """Return the rate of dropout of a module.

    Raises
    ------
    ValueError
        If it has several.
    """
    rates = {part.p for part in module.modules() if isinstance(part, nn.Dropout)}
    if len(rates) > 1:
        raise ValueError("stages with several rates of dropout cannot train together")
    return rates.pop() if rates else 0.0
