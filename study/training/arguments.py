"""Settings as the arguments of scvi-tools' models, and a check of those that are passed on unseen.

Plain values, made without scvi-tools: training passes them on, and the exported script has them written out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from study.config import ScanviSettings, ScviSettings, Settings
from study.errors import InputError, nearest

NORMS = {"batch": ("both", "none"), "layer": ("none", "both"), "none": ("none", "none")}


def check_extra(settings: Settings) -> None:
    """Raise `InputError` for `extra` arguments that scvi-tools does not know, or would silently ignore."""
    # Imported here, because scvi-tools takes seconds and most plans need nothing of it.
    from scvi.model import SCANVI, SCVI
    from scvi.module import SCANVAE, VAE

    _check_extra("scvi", settings.scvi.extra, (SCVI.__init__, VAE.__init__), scvi_arguments(settings.scvi, extra=False))
    taken = {**scvi_arguments(settings.scvi), **scanvi_arguments(settings.scanvi, extra=False)}
    _check_extra("scanvi", settings.scanvi.extra, (SCANVI.__init__, SCANVAE.__init__, VAE.__init__), taken)


def _check_extra(
    stage: str, extra: Mapping[str, Any], takers: Sequence[Callable[..., Any]], taken: Mapping[str, Any]
) -> None:
    known = {name for taker in takers for name in inspect.signature(taker).parameters} - {"self", "adata", "registry"}
    for name in extra:
        if name in taken:
            raise InputError(
                f"{stage}.extra: {name!r} is set already by a setting of scvi or scanvi; scANVI ignores a second value."
            )
        if name not in known:
            raise InputError(
                f"{stage}.extra: {name!r} is no argument of scvi-tools here.{nearest(name, sorted(known))}"
            )
    resolve(extra)


def scvi_arguments(settings: ScviSettings, extra: bool = True) -> dict[str, Any]:
    """Return the arguments of `scvi.model.SCVI` and of all networks; without `extra`, those that have a setting."""
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
        **(settings.extra if extra else {}),
    }


def scanvi_arguments(settings: ScanviSettings, extra: bool = True) -> dict[str, Any]:
    """Return the arguments that scANVI has beyond those; without `extra`, those that have a setting."""
    return {"linear_classifier": settings.linear_classifier, **(settings.extra if extra else {})}


def resolve(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the name of an activation into the function, as models take it."""
    resolved = dict(arguments)
    name = resolved.get("var_activation")
    if isinstance(name, str):
        import torch

        if not callable(getattr(torch.nn.functional, name, None)):
            raise InputError(f"extra.var_activation: torch.nn.functional has no {name!r}; for example 'softplus'.")
        resolved["var_activation"] = getattr(torch.nn.functional, name)
    return resolved
