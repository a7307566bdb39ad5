"""The detector's rules, one at a time, on logs without noise."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_llds.diagnostics.phases import PhaseDetector, PhaseReport
from verl_llds.diagnostics.settings import PhaseConfig
from verl_llds.diagnostics.signals import Phase, PhaseSignals
from verl_llds.errors import CollapseError, LLDSError

NORMAL = PhaseSignals(
    step=0,
    reward=0.4,
    probe_log_prob=-0.2,
    correct_log_prob=-0.3,
    entropy=0.5,
    answer_share=1.0,
    displaced_share=0.2,
)


def after(num_steps: int = 20, **moved: Any) -> PhaseReport:
    """Return the last report of a normal run whose quantities then move for a number of steps."""
    detector = PhaseDetector(PhaseConfig())
    for step in range(40):
        assert detector.update(replace(NORMAL, step=step)).phase is Phase.HEALTHY
    for step in range(40, 40 + num_steps):
        report = detector.update(replace(NORMAL, step=step, **moved))
    return report


@pytest.mark.parametrize(
    ("moved", "phase"),
    [
        ({}, Phase.HEALTHY),
        # Away from the baseline, but not past a ratio.
        ({"probe_log_prob": -0.23, "entropy": 0.6, "displaced_share": 0.25, "answer_share": 0.95}, Phase.HEALTHY),
        # Good directions.
        ({"probe_log_prob": -0.02, "entropy": 0.05, "displaced_share": 0.0, "reward": 1.0}, Phase.HEALTHY),
        ({"probe_log_prob": -0.25}, Phase.STAGNATION),
        ({"entropy": 0.7}, Phase.STAGNATION),
        ({"displaced_share": 0.32}, Phase.STAGNATION),
        ({"answer_share": 0.88}, Phase.STAGNATION),
        ({"probe_log_prob": -0.33}, Phase.DECAY),
        ({"probe_log_prob": -0.25, "entropy": 0.7}, Phase.DECAY),
        ({"probe_log_prob": -0.25, "entropy": 0.7, "displaced_share": 0.32}, Phase.DECAY),
        # However far one quantity goes, it announces no more than decay.
        ({"probe_log_prob": -9.0}, Phase.DECAY),
        ({"entropy": 9.0}, Phase.DECAY),
        ({"displaced_share": 1.0}, Phase.DECAY),
        ({"probe_log_prob": -0.33, "entropy": 0.9}, Phase.ACCELERATION),
        ({"probe_log_prob": -0.33, "displaced_share": 0.5}, Phase.ACCELERATION),
        ({"answer_share": 0.7, "reward": 0.19}, Phase.ACCELERATION),
        ({"probe_log_prob": -0.25, "entropy": 0.7, "displaced_share": 0.32, "answer_share": 0.88}, Phase.ACCELERATION),
        ({"reward": 0.1}, Phase.COLLAPSED),
        ({"reward": 0.0}, Phase.COLLAPSED),
        ({"answer_share": 0.5}, Phase.COLLAPSED),
        # What only supports: nothing by itself, together, or beyond its share.
        ({"reward": 0.15}, Phase.HEALTHY),
        ({"correct_log_prob": -9.0}, Phase.HEALTHY),
        ({"correct_log_prob": -9.0, "reward": 0.15}, Phase.HEALTHY),
        ({"correct_log_prob": -0.4, "probe_log_prob": -0.25}, Phase.DECAY),
        ({"correct_log_prob": -9.0, "probe_log_prob": -0.33}, Phase.DECAY),
        ({"reward": 0.15, "probe_log_prob": -0.25}, Phase.DECAY),
        ({"reward": 0.15, "probe_log_prob": -0.33}, Phase.ACCELERATION),
    ],
)
def test_phase_by_what_moved(moved: dict[str, float], phase: Phase) -> None:
    assert after(**moved).phase is phase


def test_a_phase_is_entered_after_its_steps_and_not_before() -> None:
    # Three of five readings turn the level, and four of six levels the phase.
    assert after(5, entropy=0.9).phase is Phase.HEALTHY
    report = after(6, entropy=0.9)
    assert (report.phase, report.previous, report.changed) == (Phase.DECAY, Phase.HEALTHY, True)
    report = after(7, entropy=0.9)
    assert (report.phase, report.previous, report.changed) == (Phase.DECAY, Phase.DECAY, False)


@pytest.mark.parametrize("step", [0, 3, 40])
@pytest.mark.parametrize(
    "broken",
    [{"nonfinite": True}, {"entropy": math.nan}, {"probe_log_prob": -math.inf}, {"correct_log_prob": math.nan}],
)
def test_what_is_not_finite_is_reported_at_once(step: int, broken: dict[str, Any]) -> None:
    detector = PhaseDetector(PhaseConfig())
    for at in range(step):
        detector.update(replace(NORMAL, step=at))
    report = detector.update(replace(NORMAL, step=step, **broken))
    assert report.phase is Phase.COLLAPSED
    assert report.changed
    assert report.moved == ("a log-probability or another signal of this step is not finite",)
    assert "lower the learning rate" in report.advice
    expected = f"not after step {step - 1}" if step else "no step was healthy"
    assert expected in report.advice
    # The bad value has entered no baseline: ten good steps later all is well.
    for at in range(step + 1, step + 11):
        report = detector.update(replace(NORMAL, step=at))
    assert (report.phase, report.moved) == (Phase.HEALTHY, ())


@pytest.mark.parametrize(
    ("moved", "sentence", "advice"),
    [
        ({"probe_log_prob": -0.5}, "probe set is -0.5, 2.50 times its baseline of -0.2", "algorithm.llds.coef"),
        ({"entropy": 1.0}, "entropy of the policy is 1, 2.00 times its baseline of 0.5", "learning rate"),
        ({"displaced_share": 0.5}, "trajectories is 0.5, 2.50 times its baseline of 0.2", "algorithm.llds.gate=token"),
        ({"answer_share": 0.7}, "an answer is 0.7, 0.70 times its best of 1", "trajectories"),
        ({"answer_share": 0.7, "reward": 0.1}, "reward is 0.1, 0.25 times its best of 0.4", "not after step 41"),
    ],
)
def test_reports_name_the_quantity_its_value_and_what_to_try(
    moved: dict[str, float], sentence: str, advice: str
) -> None:
    report = after(6, **moved)
    assert any(sentence in line for line in report.moved)
    assert advice in report.advice
    for part in [report.phase.value, "was healthy", sentence, advice]:
        assert part in str(report)


def test_rolling_back_is_advised_only_from_acceleration_on() -> None:
    assert "roll back" not in after(probe_log_prob=-0.5).advice
    assert "roll back" in after(probe_log_prob=-0.5, entropy=1.0).advice


def test_a_healthy_report_says_nothing_to_do() -> None:
    report = after()
    assert report == PhaseReport(phase=Phase.HEALTHY, previous=Phase.HEALTHY, changed=False, moved=(), advice="")
    assert str(report) == "phase healthy"


def test_a_slow_drift_is_followed_and_a_fast_one_is_not() -> None:
    for growth, alarms in [(1.002, False), (1.02, True)]:
        detector = PhaseDetector(PhaseConfig())
        phases = {
            detector.update(replace(NORMAL, step=step, probe_log_prob=-0.2 * growth**step)).phase for step in range(200)
        }
        assert (phases != {Phase.HEALTHY}) is alarms


def test_no_verdict_during_the_warm_up() -> None:
    settings = PhaseConfig(warmup_steps=60)
    detector = PhaseDetector(settings)
    reports = [detector.update(replace(NORMAL, step=step, entropy=0.5 if step < 30 else 5.0)) for step in range(60)]
    assert {report.phase for report in reports} == {Phase.HEALTHY}
    assert not any(report.moved for report in reports)


def test_a_quantity_that_is_no_longer_measured_is_let_go() -> None:
    detector = PhaseDetector(PhaseConfig(window=30))
    reports = [
        detector.update(replace(NORMAL, step=step, probe_log_prob=-0.2 if step < 40 else -0.5 if step < 60 else None))
        for step in range(110)
    ]
    assert reports[59].phase is Phase.DECAY
    assert reports[89].phase is Phase.DECAY
    assert reports[-1].phase is Phase.HEALTHY


def test_a_reward_that_stays_lost_means_collapse_however_noisy_it_was() -> None:
    """Four standard deviations of this reward's noise are more than all of it."""
    detector = PhaseDetector(PhaseConfig())
    phases = [
        detector.update(replace(NORMAL, step=step, reward=0.51 - (step // 8 % 2) * 0.5 if step < 40 else 0.0)).phase
        for step in range(80)
    ]
    # Three readings turn the level, ten levels are needed, and four steps that show it.
    assert phases.index(Phase.COLLAPSED) == 40 + 2 + 9 + 3


def test_a_reward_that_was_never_above_zero_is_not_judged() -> None:
    detector = PhaseDetector(PhaseConfig())
    reports = [detector.update(replace(NORMAL, step=step, reward=-0.1 if step < 40 else -1.0)) for step in range(80)]
    assert {report.phase for report in reports} == {Phase.HEALTHY}


def test_steps_must_rise() -> None:
    detector = PhaseDetector(PhaseConfig())
    detector.update(NORMAL)
    with pytest.raises(AssertionError):
        detector.update(NORMAL)


readings = st.none() | st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf])
shares = st.none() | st.floats(0, 1)
logs = st.lists(
    st.builds(
        PhaseSignals,
        step=st.just(0),
        reward=readings,
        probe_log_prob=readings,
        correct_log_prob=readings,
        entropy=readings,
        answer_share=shares,
        displaced_share=shares,
        nonfinite=st.booleans(),
    ),
    max_size=40,
)


@settings(max_examples=50, deadline=None)
@given(log=logs, stop=st.integers(0, 40))
def test_any_log_is_judged_and_can_be_resumed(
    log: list[PhaseSignals], stop: int, run: Callable[..., Any], resume: Callable[..., Any]
) -> None:
    log = [replace(signals, step=step) for step, signals in enumerate(log)]
    settings = PhaseConfig(warmup_steps=5, recent=2)
    reports = run(log, settings)
    assert resume(log, min(stop, len(log)), settings) == reports[stop:]
    for signals, report in zip(log, reports, strict=True):
        assert report.changed is (report.phase is not report.previous)
        assert not signals.broken or report.phase is Phase.COLLAPSED


def test_numbers_of_phases() -> None:
    assert [phase.number for phase in Phase] == [0, 1, 2, 3, 4]
    assert Phase("decay") is Phase.DECAY


def test_the_error_that_stops_a_run_pickles() -> None:
    error = pickle.loads(pickle.dumps(CollapseError("phase collapsed")))
    assert isinstance(error, LLDSError)
    assert isinstance(error, RuntimeError)
    assert str(error) == "phase collapsed"
