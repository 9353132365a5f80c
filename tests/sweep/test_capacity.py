"""How many stages some nodes can train at once."""

import pytest

from study.config.composition import compose
from study.errors import InputError
from study.sweep.capacity import fits, refuse_too_large


def test_a_stage_is_not_spread_over_nodes() -> None:
    laptop = compose(["resources.cpus=3"]).resources
    assert fits(laptop, [{"CPU": 4}, {"CPU": 7}]) == 1 + 2
    with pytest.raises(InputError, match="the largest node has 2"):
        refuse_too_large(laptop, [{"CPU": 2}, {"CPU": 2}])
    shared = compose(["resources=gpu_node", "resources.cpus=1", "resources.gpus=0.3"]).resources
    assert fits(shared, [{"CPU": 64, "GPU": 0.9}]) == 3
    assert fits(shared.model_copy(update={"concurrent": 2}), [{"CPU": 64, "GPU": 0.9}]) == 2
    with pytest.raises(InputError, match="no one node has together"):
        refuse_too_large(shared, [{"CPU": 64}, {"GPU": 1}])
