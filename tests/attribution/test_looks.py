"""All looks at a study together stay within its 5%, declared or not."""

import itertools

import numpy as np
import pytest

from study.attribution.correction import SIGNIFICANT
from study.attribution.looks import PART, Look, last_look, look_after

DECLARED = (3, 5, 8, 12)


def levels(counts: tuple[int, ...], most: int = 0) -> list[float]:
    taken: list[Look] = []
    for count in counts:
        taken.append(look_after(count, taken, most))
    return [look.level for look in taken]


def test_looks_spend_in_proportion_to_replicates_and_leave_some() -> None:
    found = levels(DECLARED, 12)
    assert found[0] == pytest.approx(PART * SIGNIFICANT * 3 / 12)
    assert found[1] == pytest.approx(PART * (SIGNIFICANT - found[0]) * 2 / 9)
    assert found[-1] == pytest.approx(PART * (SIGNIFICANT - sum(found[:-1]))) and sum(found) < SIGNIFICANT
    assert last_look(DECLARED).level == pytest.approx(found[-1])
    assert levels((6,)) == levels((6,), 6) == [pytest.approx(PART * SIGNIFICANT)], "who looks once may use most of it"
    assert levels((4, 6), 6)[1] > levels((4, 6))[1], "a study that was interrupted pays in proportion"


def test_declared_looks_share_what_others_left() -> None:
    taken = [look_after(6, ())]
    assert last_look(DECLARED, taken).level == pytest.approx(PART * (SIGNIFICANT - sum(levels_after(taken))))


def levels_after(taken: list[Look]) -> list[float]:
    """Levels of earlier looks and of all declared ones but the last."""
    every = list(taken)
    for count in DECLARED[:-1]:
        every.append(look_after(count, every, DECLARED[-1]))
    return [look.level for look in every]


def test_no_sequence_of_looks_uses_more_than_there_is() -> None:
    random = np.random.default_rng(0)
    for most, _ in itertools.product([0, 6, 12], range(30)):
        counts = tuple(int(count) for count in random.permutation(np.arange(2, 30))[: random.integers(1, 20)])
        used = levels(counts, most)
        assert min(used) > 0 and sum(used) < SIGNIFICANT, (counts, most)


def test_the_same_look_again_is_the_same_look() -> None:
    taken = [look_after(3, ()), Look(6, 0.008, open=())]
    assert look_after(3, taken) == taken[0]
    assert look_after(6, taken, 12) == taken[1]
