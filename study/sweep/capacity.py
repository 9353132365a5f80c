"""How many stages some nodes can train at once, and what one of them asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from study.config import Resources
from study.errors import InputError


def fits(resources: Resources, nodes: Sequence[Mapping[str, float]]) -> int:
    """Return how many stages some nodes can train at once; a stage cannot be spread over several.

    Parameters
    ----------
    nodes
        What each has, as Ray names it: `CPU`, `GPU`, `memory` (in bytes).
    """
    asked = request(resources).items()
    # Shares of a GPU are no exact numbers: 0.3 divides 0.9 three times.
    total = sum(min(math.floor(node.get(name, 0) / wanted + 1e-6) for name, wanted in asked) for node in nodes)
    return min(total, resources.concurrent or total)


def refuse_too_large(resources: Resources, nodes: Sequence[Mapping[str, float]]) -> None:
    """Raise `InputError` if no node has what one stage asks for. Parameters as in `fits`."""
    if fits(resources, nodes):
        return
    for name, wanted in request(resources).items():
        found = max(node.get(name, 0) for node in nodes)
        if wanted > found:
            key, unit = {"CPU": ("cpus", 1), "GPU": ("gpus", 1), "memory": ("memory_gib", 2**30)}[name]
            raise InputError(
                f"resources.{key}: a stage wants {wanted / unit:g}, the largest node has {found / unit:g}. "
                f"Ask for less, as in 'resources.{key}={found / unit:g}', or choose other resources."
            )
    raise InputError(f"resources: a stage wants {request(resources)}, which no one node has together: {list(nodes)}.")


def request(resources: Resources) -> dict[str, float]:
    """Return what one stage asks for, as Ray names it."""
    asked = {"CPU": float(resources.cpus), "GPU": resources.gpus, "memory": (resources.memory_gib or 0) * 2**30}
    return {name: wanted for name, wanted in asked.items() if wanted}
