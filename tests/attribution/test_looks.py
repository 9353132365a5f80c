"""All looks at a study together stay within its 5%, declared or not."""

import itertools

import numpy as np
import pytest

from study.attribution.correction import SIGNIFICANT
from study.attribution.looks import PART, Look, last_look, look_after

DECLARED = (3, 5, 8, 12)


def levels(counts: tuple[int, ...], declared: tuple[int, ...] = ()) -> list[float]:
    taken: list[Look] = []
    for count in counts:
        taken.append(look_after(count, taken, declared))
    return [look.level for look in taken]


def test_declared_looks_spend_in_proportion_to_replicates_and_leave_some() -> None:
    assert sum(levels(DECLARED, DECLARED)) == pytest.approx(PART * SIGNIFICANT)
    assert levels(DECLARED, DECLARED)[0] == pytest.approx(PART * SIGNIFICANT * 3 / 12)
    assert last_look(DECLARED).level == pytest.approx(levels(DECLARED, DECLARED)[-1])
    assert levels((6,)) == [pytest.approx(PART * SIGNIFICANT)], "who looks once may use nearly all of it"


def test_no_sequence_of_looks_uses_more_than_there_is() -> None:
    random = np.random.default_rng(0)
    plans = [(), DECLARED, (3, 4, 5, 6)]
    for declared, _ in itertools.product(plans, range(30)):
        counts = tuple(int(count) for count in random.permutation(np.arange(2, 30))[: random.integers(1, 20)])
        used = levels(counts, declared)
        assert min(used) > 0 and sum(used) < SIGNIFICANT + 1e-6, (counts, declared)


def test_the_same_look_again_is_the_same_look() -> None:
    taken = [look_after(3, ()), Look(6, 0.008, open=())]
    assert look_after(3, taken) == taken[0]
    assert look_after(6, taken, DECLARED) == taken[1]
