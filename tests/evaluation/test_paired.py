"""Paired tests against brute force."""

from __future__ import annotations

from itertools import product
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_llds.evaluation.paired import mcnemar, paired_bootstrap, sign_test


@pytest.mark.parametrize("total", range(13))
def test_the_sign_test_counts_all_ways_coins_can_fall(total: int) -> None:
    for first in range(total + 1):
        uneven = min(first, total - first)
        ways = [sum(coins) for coins in product((0, 1), repeat=total)]
        lower, upper = sum(heads <= uneven for heads in ways), sum(heads >= total - uneven for heads in ways)
        assert sign_test(first, total - first) == min(1.0, (lower + upper) / 2**total)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_the_sign_test_is_a_probability_and_the_same_both_ways(first: int, second: int) -> None:
    found = sign_test(first, second)
    assert 0 <= found <= 1
    assert found == sign_test(second, first)
    # No rounding: whole numbers are divided once.
    tail = sum(comb(first + second, heads) for heads in range(min(first, second) + 1))
    assert found == pytest.approx(min(1.0, 2 * tail / 2 ** (first + second)), rel=1e-12)


def test_mcnemar_looks_at_questions_that_only_one_got_right() -> None:
    found = mcnemar([1, 1, 1, 0, 0, 1, 0], [1, 0, 0, 1, 0, 1, 0])
    assert (found.only_a, found.only_b) == (2, 1)
    # Three coins, at most one on the rarer side: (1 + 3) / 8, twice.
    assert found.p_value == 1.0
    assert mcnemar([0] * 10, [1] * 10).p_value == pytest.approx(2 / 1024)
    assert mcnemar([1, 0], [1, 0]).p_value == 1.0


PAIRS = st.lists(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20), min_size=1, max_size=3)


@given(PAIRS, st.integers(0, 99))
def test_exchanged_evaluations_have_the_opposite_difference(pairs: list[list[tuple[float, float]]], seed: int) -> None:
    a = [[left for left, _ in one] for one in pairs]
    b = [[right for _, right in one] for one in pairs]
    there = paired_bootstrap(a, b, seed=seed, num_resamples=40)
    back = paired_bootstrap(b, a, seed=seed, num_resamples=40)
    assert back.macro.estimate.mean == pytest.approx(-there.macro.estimate.mean, abs=1e-12)
    assert back.micro.p_value == pytest.approx(there.micro.p_value)
    assert back.sets[0].estimate.low == pytest.approx(-there.sets[0].estimate.high, abs=1e-9)
    assert 0 < there.micro.p_value <= 1


def test_what_is_the_same_for_every_question_is_certain() -> None:
    found = paired_bootstrap([[0.0, 0.5, 0.2]], [[0.3, 0.8, 0.5]], seed=0)
    assert found.micro.estimate.mean == pytest.approx(0.3)
    assert found.micro.p_value < 0.002
    assert paired_bootstrap([[0.0, 1.0]], [[0.0, 1.0]], seed=0).micro.p_value == 1.0


def test_macro_counts_sets_and_micro_counts_questions() -> None:
    found = paired_bootstrap([[0.0], [0.0] * 3], [[1.0], [0.0] * 3], seed=0)
    assert found.macro.estimate.mean == pytest.approx(0.5)
    assert found.micro.estimate.mean == pytest.approx(0.25)
