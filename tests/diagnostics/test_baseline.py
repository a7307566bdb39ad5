from __future__ import annotations

from random import Random
from statistics import median

import pytest

from verl_llds.diagnostics.baseline import RunningBaseline
from verl_llds.diagnostics.settings import PhaseConfig


def filled(values: list[float], *, keep_best: bool = False, every: int = 1) -> RunningBaseline:
    baseline = RunningBaseline(PhaseConfig(), keep_best=keep_best)
    for index, value in enumerate(values):
        baseline.add(value, index * every, index * every, healthy=True)
    return baseline


def test_it_speaks_after_fifteen_readings() -> None:
    assert filled([1.0] * 14).deviation(13) is None
    deviation = filled([1.0] * 15).deviation(14)
    assert deviation is not None
    assert (deviation.level, deviation.baseline, deviation.significant) == (1.0, 1.0, False)


def test_level_and_baseline_are_medians_that_share_no_reading() -> None:
    values = [Random(0).random() for _ in range(40)]
    deviation = filled(values).deviation(39)
    assert deviation is not None
    assert deviation.level == median(values[-5:])
    assert deviation.baseline == median(values[:-5])
    assert deviation.ratio == deviation.level / deviation.baseline


def test_readings_older_than_the_window_are_forgotten() -> None:
    # Of 100 ones, then 60 twos, the window of 50 steps still holds a few ones.
    deviation = filled([1.0] * 100 + [2.0] * 60).deviation(159)
    assert deviation is not None
    assert deviation.baseline == 2.0
    deviation = filled([1.0] * 100 + [2.0] * 25).deviation(124)
    assert deviation is not None
    assert deviation.baseline == 1.0


def test_a_quantity_measured_seldom_keeps_its_last_readings() -> None:
    deviation = filled([1.0] * 15 + [2.0] * 15, every=40).deviation(29 * 40)
    assert deviation is not None
    assert deviation.baseline == 2.0


def test_the_best_is_kept() -> None:
    falling = [1.0] * 60 + [0.5] * 120
    best, usual = (filled(falling, keep_best=keep).deviation(179) for keep in (True, False))
    assert best is not None
    assert usual is not None
    assert (best.baseline, best.level) == (1.0, 0.5)
    assert usual.baseline == 0.5


def test_nothing_is_learned_while_unhealthy() -> None:
    baseline = filled([1.0] * 30)
    for step in range(30, 200):
        baseline.add(9.0, step, 30, healthy=False)
    deviation = baseline.deviation(199)
    assert deviation is not None
    assert (deviation.level, deviation.baseline) == (9.0, 1.0)


@pytest.mark.parametrize("slope", [0.0, 0.05, -0.05])
def test_noise_is_told_from_trend(slope: float) -> None:
    """With the threshold at 4 standard deviations of the level, 2 pass for noise and 7 do not, trend or none."""
    hits = {2.0: 0, 7.0: 0}
    for seed in range(50):
        rng = Random(seed)
        values = [20 + slope * step + rng.gauss(0, 1) for step in range(55)]
        # The median of five readings of unit noise has a standard deviation of 0.536.
        middle = 20 + slope * 29.5
        for size in hits:
            deviation = filled([*values, *[middle + size * 0.536] * 5]).deviation(59)
            assert deviation is not None
            hits[size] += deviation.significant
    assert hits[2.0] <= 5
    assert hits[7.0] >= 45


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_no_ratio_to_a_baseline_that_is_not_positive(value: float) -> None:
    assert filled([value] * 30).deviation(29) is None
