"""Settings as the arguments of scvi-tools' models.

Plain values, made without scvi-tools: training passes them on, and the exported script has them written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from study.config import ScanviSettings, ScviSettings, dump

NORMS = {"batch": ("both", "none"), "layer": ("none", "both"), "none": ("none", "none")}


def scvi_arguments(settings: ScviSettings) -> dict[str, Any]:
    """Return the arguments of `scvi.model.SCVI` and of all networks."""
    batch_norm, layer_norm = NORMS[settings.norm]
    return {
        "n_layers": settings.n_layers,
        "n_latent": settings.n_latent,
        "n_hidden": settings.n_hidden,
        "dropout_rate": settings.dropout_rate,
        "gene_likelihood": settings.gene_likelihood,
        "dispersion": settings.dispersion,
        "use_batch_norm": batch_norm,
        "use_layer_norm": layer_norm,
        **dump(settings.extra),
    }


def scanvi_arguments(settings: ScanviSettings) -> dict[str, Any]:
    """Return the arguments that scANVI has beyond those."""
    return {"linear_classifier": settings.linear_classifier, **dump(settings.extra)}


def resolve(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the name of an activation into the function, as models take it."""
    resolved = dict(arguments)
    name = resolved.get("var_activation")
    if isinstance(name, str):
        import torch

        resolved["var_activation"] = getattr(torch.nn.functional, name)
    return resolved
