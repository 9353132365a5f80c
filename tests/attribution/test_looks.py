"""All looks at a study together stay within its 5%, declared or not."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from study.attribution.correction import SIGNIFICANT
from study.attribution.looks import PART, TESTS, Look, last_look, level_of, look_after

DECLARED = (3, 5, 8, 12)


def looks(counts: Sequence[int], most: int = 0) -> list[Look]:
    taken: list[Look] = []
    for count in counts:
        taken.append(look_after(count, taken, most))
    return taken


def spent(counts: Sequence[int], most: int = 0) -> list[float]:
    return [look.spent for look in looks(counts, most)]


def test_looks_spend_in_proportion_to_replicates_and_leave_some() -> None:
    found = spent(DECLARED, 12)
    assert found[0] == pytest.approx(PART * SIGNIFICANT * 3 / 12)
    assert found[1] == pytest.approx(PART * (SIGNIFICANT - found[0]) * 2 / 9)
    assert found[-1] == pytest.approx(PART * (SIGNIFICANT - sum(found[:-1]))) and sum(found) < SIGNIFICANT
    assert last_look(DECLARED).spent == pytest.approx(found[-1])
    assert spent((6,)) == spent((6,), 6) == [pytest.approx(PART * SIGNIFICANT)], "who looks once may use most of it"
    assert looks((6,))[0].level == pytest.approx(PART * SIGNIFICANT), "and errs in no other look"
    assert spent((4, 6), 6)[1] > spent((4, 6))[1], "a study that was interrupted pays in proportion"


def test_declared_looks_share_what_others_left() -> None:
    every = [look_after(6, ())]
    for count in DECLARED[:-1]:
        every.append(look_after(count, every, DECLARED[-1]))
    left = SIGNIFICANT - sum(look.spent for look in every)
    assert last_look(DECLARED, every[:1]).spent == pytest.approx(PART * left)


def test_no_sequence_of_looks_uses_more_than_there_is() -> None:
    random = np.random.default_rng(0)
    for most, _ in itertools.product([0, 6, 12], range(10)):
        counts = tuple(int(count) for count in random.permutation(np.arange(2, 30))[: random.integers(1, 20)])
        used = looks(counts, most)
        assert min(look.spent for look in used) > 0 and sum(look.spent for look in used) < SIGNIFICANT, (counts, most)
        assert all(look.spent <= look.level <= SIGNIFICANT for look in used), "looks err together, but not more often"


def test_who_looks_without_end_gets_ever_less_and_no_error() -> None:
    taken = looks((6,), 6)
    for count in range(7, 60):
        taken.append(look_after(count, taken))
    assert all(0 < look.spent <= look.level for look in taken)
    assert sum(look.spent for look in taken) <= SIGNIFICANT * (1 + 1e-9)


@pytest.mark.parametrize(("counts", "tests", "df"), [(range(3, 13), 1, 4), (range(3, 13), 10, 4), (DECLARED, 10, 1)])
def test_tests_looked_at_again_and_again_err_as_often_as_is_spent(counts: Sequence[int], tests: int, df: int) -> None:
    """Null studies: a mean over replicates, and an error of `df` degrees of freedom from each but the first."""
    random, studies, every = np.random.default_rng(1), 400_000, looks(counts, counts[-1])
    errs = np.zeros(studies, bool)
    total, squares, before = np.zeros(studies), np.zeros(studies), 0
    for look in every:
        more = look.replicates - before
        total += random.normal(scale=np.sqrt(more), size=studies)
        freedom = df * (look.replicates - 1)
        squares += random.chisquare(df * (more if before else more - 1), size=studies)
        size = np.abs(total) / np.sqrt(look.replicates * squares / freedom)
        errs |= 2 * stats.t.sf(size, freedom) <= look.level / tests
        before = look.replicates
    found, error = tests * float(errs.mean()), tests * np.sqrt(SIGNIFICANT / tests / studies)
    assert found <= sum(look.spent for look in every) + 3 * error < SIGNIFICANT + 3 * error
    assert found > 1.3 * sum(look.spent for look in every) / 2, "of what is spent most is used"


def test_a_level_is_what_plain_simulation_finds() -> None:
    """Two looks, after 3 and 6 replicates, each with 2%: how often the second one errs alone, of `TESTS` tests."""
    first, then = stats.norm.isf(0.02 / TESTS / 2), level_of(0.02, 6, ((3, 0.02),))
    edge = stats.norm.isf(then / TESTS / 2)
    apart = stats.multivariate_normal(cov=[[1, np.sqrt(0.5)], [np.sqrt(0.5), 1]], abseps=1e-12, releps=1e-9)
    inside_then = 2 * stats.norm.cdf(edge) - 1
    inside_both = sum(
        sign * apart.cdf([a, b])
        for sign, a, b in [(1, first, edge), (-1, -first, edge), (-1, first, -edge), (1, -first, -edge)]
    )
    # Inside before and outside now: inside before, less inside both times.
    alone = (2 * stats.norm.cdf(first) - 1) - inside_both
    assert TESTS * alone == pytest.approx(0.02, rel=1e-3)
    assert then > 0.02 and inside_then > 0.99


def test_the_same_look_again_is_the_same_look() -> None:
    taken = [look_after(3, ()), Look(6, 0.008, 0.008, open=())]
    assert look_after(3, taken) == taken[0]
    assert look_after(6, taken, 12) == taken[1]
