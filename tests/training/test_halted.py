"""A halted training goes on as if it never had been: the same weights, curves and draws, bit for bit."""

import io
from typing import Any

import numpy as np
import pytest
import torch

from study.config.composition import compose
from study.plan.split import split_cells
from study.training.building import State, state_of
from study.training.halted import Halted
from study.training.hardware import Hardware
from study.training.models import finetune, pretrain
from study.training.snapshot import Snapshot
from tests.made import TINY, few_cells


@pytest.mark.parametrize("engine", ["exact", "fast"])
@pytest.mark.parametrize("samples", ["2", "all"])
def test_a_halted_training_goes_on_bit_for_bit(engine: str, samples: str) -> None:
    config = compose([*TINY, f"scanvi.n_samples_per_label={samples}"])
    cells, on = few_cells(), Hardware(engine=engine)
    parts = split_cells(cells, 0, 3, 128)
    pretrained: list[State] = []
    pretrain(cells, parts, config, 0, [2], lambda snapshot: pretrained.append(state_of(snapshot.model)), on)

    def tuned(levels: list[int], start: Halted | None = None) -> tuple[dict[int, Any], Halted]:
        read: dict[int, Any] = {}
        left: list[Halted] = []

        def keep(snapshot: Snapshot) -> None:
            read[snapshot.epoch] = (state_of(snapshot.model), snapshot.curves, snapshot.probes)

        finetune(cells, parts, config, 7, levels, keep, on, pretrained[0], start, left.append)
        return read, left[0]

    whole, end = tuned([2, 3, 5])
    first, halted = tuned([2, 3])
    np.random.random(5), torch.rand(5)  # what happens in between is not its business
    buffer = io.BytesIO()
    torch.save(halted, buffer)
    buffer.seek(0)
    second, ended = tuned([5], torch.load(buffer, weights_only=True))
    for epoch, (state, curves, probes) in (first | second).items():
        expected = whole[epoch]
        assert all(torch.equal(state[name], value) for name, value in expected[0].items()), epoch
        assert (curves, probes) == expected[1:], epoch
    assert all(torch.equal(ended["weights"][name], value) for name, value in end["weights"].items())
    for one, other in zip(ended["optimizers"], end["optimizers"], strict=True):
        for name, slots in other["state"].items():
            assert all(
                torch.equal(torch.as_tensor(one["state"][name][k]), torch.as_tensor(v)) for k, v in slots.items()
            )
    assert torch.equal(ended["torch"], end["torch"]) and ended["python"] == end["python"]
    assert not all(torch.equal(whole[3][0][name], value) for name, value in whole[5][0].items()), "it went on"
