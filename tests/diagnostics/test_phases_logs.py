"""The detector on whole logs: silent on healthy ones, in time on those that collapse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from verl_llds.diagnostics.phases import PhaseReport
from verl_llds.diagnostics.signals import Phase, PhaseSignals

ALARMS = [Phase.STAGNATION, Phase.DECAY, Phase.ACCELERATION, Phase.COLLAPSED]


def first_step(reports: list[PhaseReport], phase: Phase) -> int | None:
    """Return the first step at which a phase, or a worse one, is named."""
    return next((step for step, report in enumerate(reports) if report.phase.number >= phase.number), None)


def without(log: list[PhaseSignals], *names: str) -> list[PhaseSignals]:
    return [replace(signals, **dict.fromkeys(names)) for signals in log]


@pytest.mark.parametrize("probe_rises", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_no_alarm_in_a_thousand_healthy_steps(
    seed: int, probe_rises: bool, healthy_log: Callable[..., Any], run: Callable[..., Any]
) -> None:
    reports = run(healthy_log(seed, probe_rises=probe_rises))
    assert {report.phase for report in reports} == {Phase.HEALTHY}
    assert not any(report.changed or report.advice for report in reports)


@pytest.mark.parametrize("seed", range(10))
def test_the_three_phases_are_named_in_order_and_in_time(
    seed: int, collapsing_log: Callable[..., Any], run: Callable[..., Any]
) -> None:
    log, onsets = collapsing_log(seed)
    reports = run(log)
    assert [report.phase for report in reports if report.changed] == ALARMS
    # A slow slope is only told from drift after it has gone some way, a surge within steps.
    for phase, onset, (earliest, latest) in zip(ALARMS, onsets, [(0, 40), (0, 25), (-10, 12), (-10, 12)], strict=True):
        step = first_step(reports, phase)
        assert step is not None
        assert earliest <= step - onset <= latest, (phase, step - onset)


@pytest.mark.parametrize(("log_prob_scale", "entropy_scale"), [(0.125, 8), (8, 0.125), (10, 0.1), (0.1, 10)])
def test_the_scale_of_likelihood_and_entropy_changes_nothing(
    log_prob_scale: float, entropy_scale: float, collapsing_log: Callable[..., Any], run: Callable[..., Any]
) -> None:
    plain, _ = collapsing_log(3)
    scaled, _ = collapsing_log(3, log_prob_scale=log_prob_scale, entropy_scale=entropy_scale)
    assert [report.phase for report in run(scaled)] == [report.phase for report in run(plain)]


@pytest.mark.parametrize(
    "missing",
    [
        ["probe_log_prob"],
        ["displaced_share"],
        ["entropy"],
        ["answer_share", "correct_log_prob"],
        # What stock verl logs: entropy and reward.
        ["probe_log_prob", "displaced_share", "answer_share", "correct_log_prob"],
    ],
)
def test_missing_signals_delay_but_do_not_blind(
    missing: list[str], collapsing_log: Callable[..., Any], run: Callable[..., Any]
) -> None:
    latest = 20 if len(missing) < 3 else 40
    for seed in range(3):
        log, onsets = collapsing_log(seed)
        reports = run(without(log, *missing))
        acceleration = first_step(reports, Phase.ACCELERATION)
        assert acceleration is not None
        assert acceleration - onsets[2] <= latest
        assert reports[-1].phase is Phase.COLLAPSED
        assert all(report.phase is Phase.HEALTHY for report in reports[: onsets[0]])


def test_a_probe_measured_every_fifth_step_is_enough(
    collapsing_log: Callable[..., Any], run: Callable[..., Any]
) -> None:
    log, onsets = collapsing_log(0)
    sparse = [signals if signals.step % 5 == 0 else replace(signals, probe_log_prob=None) for signals in log]
    reports = run(sparse)
    decay = first_step(reports, Phase.DECAY)
    assert decay is not None
    assert 0 <= decay - onsets[1] <= 30


def test_a_sudden_collapse_is_named_within_ten_steps(healthy_log: Callable[..., Any], run: Callable[..., Any]) -> None:
    for seed in range(5):
        log = healthy_log(seed, probe_rises=False, num_steps=120)
        for step in range(100, 120):
            log[step] = replace(log[step], reward=0.0, answer_share=0.1, entropy=3.0)
        reports = run(log)
        assert first_step(reports[:100], Phase.STAGNATION) is None
        step = first_step(reports, Phase.COLLAPSED)
        assert step is not None
        assert step < 110


def test_rewards_alone_that_are_lost_mean_collapse(healthy_log: Callable[..., Any], run: Callable[..., Any]) -> None:
    log = without(healthy_log(0, probe_rises=False, num_steps=120), "probe_log_prob", "entropy", "answer_share")
    log = without(log, "displaced_share", "correct_log_prob")
    for step in range(100, 120):
        log[step] = replace(log[step], reward=0.0)
    assert [report.phase for report in run(log) if report.changed] == [Phase.COLLAPSED]


def test_a_dip_that_recovers_is_healthy_again(collapsing_log: Callable[..., Any], run: Callable[..., Any]) -> None:
    log, _ = collapsing_log(1)
    calm = without(log[:60], "reward", "correct_log_prob")
    dip = [replace(calm[0], entropy=1.4, probe_log_prob=-0.5, answer_share=0.7) for _ in range(12)]
    whole = [*calm, *dip, *calm, *dip]
    reports = run([replace(signals, step=step) for step, signals in enumerate(whole)])
    changes = [(step, report.phase) for step, report in enumerate(reports) if report.changed]
    alarms = [step for step, phase in changes if phase is Phase.ACCELERATION]
    recoveries = [step for step, phase in changes if phase is Phase.HEALTHY]
    assert len(alarms) == 2
    # Three readings back to normal turn the level, ten calm steps the phase.
    assert recoveries == [72 + 2 + 9]
    # The first dip has not become the normal that the second is measured by.
    assert alarms[1] - (72 + 60) <= alarms[0] - 60 + 1


def test_a_resumed_detector_goes_on_as_if_nothing_had_happened(
    collapsing_log: Callable[..., Any], resume: Callable[..., Any], run: Callable[..., Any]
) -> None:
    log, _ = collapsing_log(2)
    reports = run(log)
    for stop in [0, 1, 19, 63, 105, 150, 199]:
        assert resume(log, stop) == reports[stop:]


def test_noise_of_one_step_leaves_no_trace(collapsing_log: Callable[..., Any], run: Callable[..., Any]) -> None:
    log, _ = collapsing_log(4)
    calm = log[:60]
    rng = Random(0)
    for step in range(22, 60, 6):
        calm[step] = replace(calm[step], **{rng.choice(["entropy", "displaced_share"]): 100.0, "reward": 0.0})
    assert {report.phase for report in run(calm)} == {Phase.HEALTHY}
