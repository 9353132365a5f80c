"""Several like stages trained as one network, and the step of all of them as one CUDA graph.

A GPU computes a step of one such small network in less time than a host takes to launch its parts. So replicates, and
stages whose settings differ in numbers alone, train side by side, each on its own minibatches, with its own noise and
optimiser state; and the step, from the gathering of cells to Adam, is recorded once and played again: the host says
no more than "again". Minibatches, a last one that is smaller too, have one shape (see `draws`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from study.training.counts import OnDevice
from study.training.group import Group, Member

# Called with the number of a member, an epoch level, and what there is of the member.
ReadLevel = Callable[[int, int, "Trained"], None]


@dataclass(frozen=True, eq=False)
class Trained:
    """What became of a member.

    Attributes
    ----------
    states
        Weights on the CPU, for `load_state_dict`, by epoch level.
    probes
        What the schedule did, by epoch level, as in `study.training.snapshot.Snapshot`.
    curves
        Training curves, name to one value per epoch.
    """

    states: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    probes: dict[int, dict[str, Any]] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)

    @property
    def diverged(self) -> int | None:
        """The first epoch whose loss is not finite."""
        return next((n for n, loss in enumerate(self.curves["train_loss"], 1) if not math.isfinite(loss)), None)


def train_together(
    members: Sequence[Member],
    cells: OnDevice,
    epochs: Sequence[int],
    batch_size: int,
    graph: bool = True,
    read: ReadLevel | None = None,
) -> list[Trained]:
    """Train like stages at once, on the device that holds their cells.

    Parameters
    ----------
    members
        Stages whose networks have equal shapes, with as many steps in an epoch.
    cells
        The cells of all members.
    epochs
        Levels to keep, ascending; training ends at the last.
    batch_size
        Cells of a minibatch.
    graph
        Record the step on a GPU; on the CPU there is nothing to record.
    read
        Called at each level of each member whose losses were finite so far; training ends early where there is none.

    Raises
    ------
    ValueError
        If the members cannot train together.
    """
    group = Group(members, cells, batch_size)
    found = [Trained() for _ in members]
    drawn = group.draw()
    for epoch in range(1, epochs[-1] + 1):
        group.begin(epoch, drawn)
        if epoch == 1 and graph and cells.batch.is_cuda:
            group.record()
        for _ in range(group.steps):
            group.step()
        if epoch < epochs[-1]:
            drawn = group.draw()  # while a GPU is at its last steps
        for member, one in enumerate(found):
            for name, value in group.metrics(member).items():
                one.curves.setdefault(name, []).append(value)
            if epoch in epochs:
                one.states[epoch] = group.state(member)
                one.probes[epoch] = group.probes(member, epoch)
                if read is not None and one.diverged is None:
                    read(member, epoch, one)
        if all(not math.isfinite(one.curves["train_loss"][-1]) for one in found):
            break
    return found
