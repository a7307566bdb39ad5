"""Bootstrap intervals: against brute force, as properties, and as intervals."""

from __future__ import annotations

from itertools import product
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_llds.evaluation.bootstrap import average, resampled_means

SETS = st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=30), min_size=1, max_size=4)


@given(SETS, st.integers(0, 1000))
def test_means_are_means_and_intervals_lie_among_the_values(values: list[list[float]], seed: int) -> None:
    found = average(values, seed=seed, num_resamples=50)
    for one, estimate in zip(values, found.sets, strict=True):
        assert estimate.mean == pytest.approx(fmean(one))
        assert min(one) - 1e-9 <= estimate.low <= estimate.high <= max(one) + 1e-9
    assert found.macro.mean == pytest.approx(fmean(fmean(one) for one in values))
    assert found.micro.mean == pytest.approx(fmean(value for one in values for value in one))
    assert found.macro.low <= found.macro.high


@given(SETS, st.integers(0, 1000))
def test_the_same_seed_gives_the_same_ends(values: list[list[float]], seed: int) -> None:
    assert average(values, seed=seed, num_resamples=50) == average(values, seed=seed, num_resamples=50)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.floats(-2, 2), st.integers(0, 99))
def test_shifted_values_have_a_shifted_interval(values: list[float], shift: float, seed: int) -> None:
    (plain,) = average([values], seed=seed, num_resamples=50).sets
    (moved,) = average([[value + shift for value in values]], seed=seed, num_resamples=50).sets
    assert moved.low == pytest.approx(plain.low + shift, abs=1e-9)
    assert moved.high == pytest.approx(plain.high + shift, abs=1e-9)


def test_equal_values_leave_no_doubt() -> None:
    found = average([[0.25] * 7, [0.75] * 3], seed=0)
    assert (found.macro.low, found.macro.high) == pytest.approx((0.5, 0.5))
    assert (found.micro.low, found.micro.high) == pytest.approx((0.4, 0.4))


def test_resamples_are_distributed_as_all_resamples_are() -> None:
    values = np.array([0.0, 0.0, 1.0, 0.5])
    # Every one of the 4^4 resamples is equally likely.
    exact = np.array([np.mean([values[n] for n in drawn]) for drawn in product(range(4), repeat=4)])
    (drawn,) = resampled_means([values], seed=1, num_resamples=40_000)
    for point in np.unique(exact):
        assert (drawn == point).mean() == pytest.approx((exact == point).mean(), abs=0.01)


def test_large_sets_are_drawn_in_pieces_of_the_same_stream() -> None:
    values = np.arange(3_000_000, dtype=np.float64) / 3_000_000
    (drawn,) = resampled_means([values], seed=0, num_resamples=3)
    assert drawn.shape == (3,)
    assert np.abs(drawn - 0.5).max() < 0.002


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(200):
        sample = (rng.random(80) < 0.4).astype(float).tolist()
        (estimate,) = average([sample], seed=trial, num_resamples=400).sets
        hits += estimate.low <= 0.4 <= estimate.high
    assert 0.88 <= hits / 200 <= 0.99
