"""Members of a group in training: their weights as one network, their minibatches, and the step of all of them.

Members know nothing of each other: each has generators of its own, seeded by its seed, so neither order nor company
changes what it draws, and a loss that is not finite stays with its member.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scvi.module import SCANVAE, VAE
from torch import Tensor

from study.plan import KL_WARMUP, Indices
from study.training.counts import OnDevice
from study.training.draws import Draw, again, draw, drawn_labelled, stacked, steps_of
from study.training.exact import Kept, epoch_metrics
from study.training.noise import Noise
from study.training.stacked import check_alike, learned_names, losses, minibatch

# As scvi-tools' training plans set them.
LR, EPS, WEIGHT_DECAY = 1e-3, 0.01, 1e-6
WARM_UP = 3  # steps before the recorded one


@dataclass(frozen=True, eq=False)
class Member:
    """One stage of a group.

    Attributes
    ----------
    module
        A new module of scvi-tools with the weights to start from; it is left as it is.
    rows
        Training cells.
    seed
        Of its minibatches and its noise.
    labelled
        Training cells of each label; empty for scVI.
    samples
        Labelled cells of each label that are drawn in an epoch; all where None.
    classification_ratio
        Weight of the classification loss.
    """

    module: VAE
    rows: Indices
    seed: int
    labelled: Mapping[str, Indices] = field(default_factory=dict)
    samples: int | None = None
    classification_ratio: float = 50


@dataclass(frozen=True, eq=False)
class Drawn:
    """The minibatches of an epoch of all members, shapes as in `_Minibatches`, and the labelled cells of each."""

    joint: Draw
    labelled: Draw | None = None
    cells: Sequence[Indices] = ()


class Group:
    """Members in training: their weights, their minibatches of an epoch, and what its steps showed."""

    def __init__(self, members: Sequence[Member], cells: OnDevice, batch_size: int) -> None:
        check_alike([one.module for one in members])
        steps = {steps_of(one.rows.size, batch_size) for one in members}
        if len(steps) > 1:
            raise ValueError("stages that train together must have as many steps in an epoch")
        (self.steps,) = steps
        self.members, self.cells, self.batch_size = members, cells, batch_size
        self.device = cells.batch.device
        self.template = members[0].module
        self.random = [np.random.default_rng(one.seed) for one in members]
        self.draws = [np.zeros(len(cells.batch), dtype=np.int64) for _ in members]
        states = [one.module.state_dict() for one in members]
        self.stack = {
            name: torch.stack([state[name].detach() for state in states]).to(self.device) for name in states[0]
        }
        self.learned = [self.stack[name].requires_grad_() for name in learned_names(self.template)]
        self.dtype = self.learned[0].dtype
        on_gpu = self.device.type == "cuda"
        self.adam = torch.optim.Adam(
            self.learned, lr=LR, eps=EPS, weight_decay=WEIGHT_DECAY, fused=True, capturable=on_gpu
        )
        shape = (self.steps, len(members))
        # As wide whatever the members draw, or a member's noise would depend on the others.
        self.joint = _Minibatches.room(*shape, batch_size, self.device)
        self.labelled = _Minibatches.room(*shape, batch_size, self.device)
        self.noise = Noise([one.module for one in members], [one.seed for one in members], batch_size, self.device)
        self.classified = isinstance(self.template, SCANVAE)
        self.at = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.kl_weight = torch.zeros(1, dtype=self.dtype, device=self.device)
        ratios = [one.classification_ratio for one in members]
        self.ratio = torch.tensor(ratios, dtype=self.dtype, device=self.device)
        # By step and member: what `stacked.Shown` has.
        self.values = torch.zeros(*shape, 4 if self.classified else 3, dtype=self.dtype, device=self.device)
        self.sure = torch.zeros(*shape, batch_size, dtype=self.dtype, device=self.device)
        self.right = torch.zeros(*shape, batch_size, dtype=torch.bool, device=self.device)
        self.recorded: torch.cuda.CUDAGraph | None = None

    def draw(self) -> Drawn:
        """Draw the minibatches of an epoch; this is the host's work, which it can do while the device is at another."""
        size, pairs = self.batch_size, list(zip(self.members, self.random, strict=True))
        joint = stacked([draw(one.rows, size, random) for one, random in pairs])
        if not self.classified:
            return Drawn(joint)
        cells = [drawn_labelled(one.labelled, one.samples, size, random) for one, random in pairs]
        labelled = [
            again(draw(rows, size, random), self.steps) for rows, random in zip(cells, self.random, strict=True)
        ]
        return Drawn(joint, stacked(labelled), cells)

    def begin(self, epoch: int, drawn: Drawn) -> None:
        """Begin an epoch, the first being 1, with its minibatches."""
        self.at.zero_()
        self.kl_weight.fill_(min(1.0, (epoch - 1) / KL_WARMUP))
        self.joint.fill(drawn.joint)
        if drawn.labelled is not None:
            self.labelled.fill(drawn.labelled)
        for draws, rows in zip(self.draws, drawn.cells, strict=False):
            draws[rows] += 1

    def step(self) -> None:
        """Take the next step of the epoch."""
        if self.recorded is None:
            self._step()
        else:
            self.recorded.replay()

    def _step(self) -> None:
        """One step. Everything in it stays on the device and has one shape, so that it can be recorded."""
        self.noise.draw()
        joint = self._minibatch(self.joint, self.cells.batch)
        labelled = self._minibatch(self.labelled, self.cells.labels) if self.classified else None
        shown = losses(self.template, self.stack, joint, labelled, self.noise.sites, self.kl_weight, self.ratio)
        # The gradient of a sum is that of each: a member gets that of its own loss alone.
        for weight, gradient in zip(self.learned, torch.autograd.grad(shown.loss.sum(), self.learned), strict=True):
            weight.grad = gradient.contiguous()  # or the fused step would read it in another order
        self.adam.step()
        self.values.index_copy_(0, self.at, shown.values.unsqueeze(0))
        if shown.sure is not None and shown.right is not None:
            self.sure.index_copy_(0, self.at, shown.sure.unsqueeze(0))
            self.right.index_copy_(0, self.at, shown.right.unsqueeze(0))
        self.at.add_(1)

    def _minibatch(self, drawn: _Minibatches, codes: Tensor) -> Any:
        rows, sizes = drawn.rows.index_select(0, self.at)[0], drawn.sizes.index_select(0, self.at)[0]
        x = self.cells.counts.gather(rows, self.dtype)
        return minibatch(x, codes.index_select(0, rows.flatten()).view(rows.shape), sizes)

    def record(self) -> None:
        """Record the step as a CUDA graph, after steps that are undone again; minibatches must have been drawn."""
        before = {name: value.detach().clone() for name, value in self.stack.items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.at.zero_()
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.no_grad():
            for name, value in before.items():
                self.stack[name].copy_(value)
            for state in self.adam.state.values():
                for value in state.values():
                    value.zero_()
        self.at.zero_()
        self.noise.seed()
        graph = torch.cuda.CUDAGraph()
        for generator in self.noise.generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=stream):
            self._step()
        self.recorded = graph

    def metrics(self, member: int) -> dict[str, float]:
        """Return the metrics of the epoch that has ended; this waits for the device."""
        values, sure, right = (value[:, member].float().cpu() for value in (self.values, self.sure, self.right))
        cells, labelled = (drawn.sizes[:, member].tolist() for drawn in (self.joint, self.labelled))
        found = epoch_metrics(Kept(values, sure, right, cells, labelled))
        return found if self.classified else {**found, "kl_weight": float(self.kl_weight)}

    def state(self, member: int) -> dict[str, Tensor]:
        """Return a copy of the weights of a member on the CPU."""
        return {name: value[member].detach().cpu().clone() for name, value in self.stack.items()}

    def probes(self, member: int, epoch: int) -> dict[str, Any]:
        """Return what the schedule did until the end of an epoch."""
        found: dict[str, Any] = {"steps": epoch * self.steps, "kl_weight": float(self.kl_weight)}
        one, draws = self.members[member], self.draws[member]
        if self.classified:
            of_label = {name: draws[rows] for name, rows in one.labelled.items()}
            found["labelled_batches"] = steps_of(int(draws.sum()) // epoch, self.batch_size)
            found["batches"] = self.steps
            found["distinct_labelled"] = {name: int((n > 0).sum()) for name, n in of_label.items()}
            found["draws_per_cell"] = {name: float(n[n > 0].mean()) for name, n in of_label.items() if n.any()}
        return found


@dataclass(frozen=True, eq=False)
class _Minibatches:
    """The minibatches of an epoch: rows, shape (n_steps, n_members, batch_size), and sizes, (n_steps, n_members)."""

    rows: Tensor
    sizes: Tensor

    @classmethod
    def room(cls, steps: int, members: int, width: int, device: torch.device) -> _Minibatches:
        rows, sizes = (
            torch.zeros(steps, members, width, dtype=torch.int64),
            torch.ones(steps, members, dtype=torch.int64),
        )
        return cls(rows.to(device), sizes.to(device))

    def fill(self, drawn: Draw) -> None:
        """Put in what was drawn."""
        self.rows.copy_(torch.from_numpy(drawn.rows))
        self.sizes.copy_(torch.from_numpy(drawn.sizes))
