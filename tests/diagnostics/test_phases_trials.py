"""The detector on trials of a policy of 0.4M parameters: two logs as they were, and logs drawn through summaries.

The logs are of plain GRPO in the collapse lab: ``collapses`` at a learning rate of 8e-4 (reward 0.37, then 0.49,
then nothing), ``holds`` at 6e-4 (reward 0.34, then 0.63, while the likelihood of the probe set falls).

Of each other trial the beginning, the end and the turning points are known; between them the quantities are joined by
straight lines (likelihood and entropy by exponentials), with noise.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from verl_llds.diagnostics.settings import PhaseConfig
from verl_llds.diagnostics.signals import Phase, PhaseSignals, signals_from_metrics

Knots = list[tuple[int, float]]


@dataclass(frozen=True, kw_only=True)
class Trial:
    reward: Knots
    entropy: Knots
    probe_nll: Knots
    answer_share: Knots
    displaced_share: Knots
    lost: int | None = None
    """Step at which the reward fell below a quarter of its best; None for a trial that stayed healthy."""


TRIALS = {
    "constant 3e-4": Trial(
        reward=[(0, 0.36), (60, 0.34), (97, 0.09), (109, 0.02), (118, 0.01)],
        entropy=[(0, 0.68), (90, 0.70), (105, 1.05), (118, 2.24)],
        probe_nll=[(0, 0.63), (60, 0.9), (118, 1.85)],
        answer_share=[(0, 0.99), (95, 0.97), (108, 0.7), (118, 0.12)],
        displaced_share=[(0, 0.2), (95, 0.2), (104, 0.45), (118, 0.55)],
        lost=97,
    ),
    "ramp to 8e-4": Trial(
        reward=[(0, 0.39), (20, 0.43), (35, 0.33), (66, 0.1), (80, 0.02), (82, 0.02)],
        entropy=[(0, 0.27), (60, 0.3), (76, 0.42), (82, 1.58)],
        probe_nll=[(0, 0.16), (35, 0.25), (82, 1.2)],
        answer_share=[(0, 0.99), (70, 0.97), (82, 0.45)],
        displaced_share=[(0, 0.22), (68, 0.22), (76, 0.45), (82, 0.5)],
        lost=66,
    ),
    "constant 6e-4": Trial(
        reward=[(0, 0.37), (15, 0.25), (28, 0.09), (40, 0.02), (44, 0.02)],
        entropy=[(0, 0.26), (26, 0.3), (32, 0.4), (44, 1.5)],
        probe_nll=[(0, 0.16), (20, 0.3), (44, 1.09)],
        answer_share=[(0, 0.99), (26, 0.97), (44, 0.6)],
        displaced_share=[(0, 0.22), (20, 0.25), (26, 0.45), (44, 0.5)],
        lost=28,
    ),
    "healthy 1e-4": Trial(
        reward=[(0, 0.37), (60, 0.5), (92, 0.48)],
        entropy=[(0, 0.25), (92, 0.16)],
        probe_nll=[(0, 0.16), (92, 0.17)],
        answer_share=[(0, 0.99), (92, 1.0)],
        displaced_share=[(0, 0.21), (92, 0.21)],
    ),
    "healthy 4e-5": Trial(
        reward=[(0, 0.36), (60, 0.48), (88, 0.48)],
        entropy=[(0, 0.27), (88, 0.23)],
        probe_nll=[(0, 0.16), (88, 0.17)],
        answer_share=[(0, 0.99), (88, 1.0)],
        displaced_share=[(0, 0.24), (88, 0.24)],
    ),
}


def between(knots: Knots, step: int) -> float:
    right = min(bisect_right(knots, step, key=lambda knot: knot[0]), len(knots) - 1)
    (start, low), (stop, high) = knots[right - 1], knots[right]
    return low + (high - low) * (step - start) / (stop - start)


def exponential(knots: Knots, step: int) -> float:
    return math.exp(between([(at, math.log(value)) for at, value in knots], step))


def log_of(trial: Trial, seed: int) -> list[PhaseSignals]:
    rng = Random(seed)
    num_rollouts = 60 if trial.lost else 120

    def share(knots: Knots, step: int) -> float:
        chance = between(knots, step)
        return sum(rng.random() < chance for _ in range(num_rollouts)) / num_rollouts

    return [
        PhaseSignals(
            step=step,
            reward=share(trial.reward, step),
            entropy=exponential(trial.entropy, step) * math.exp(rng.gauss(0, 0.06)),
            # Measured every second step.
            probe_log_prob=-exponential(trial.probe_nll, step) * math.exp(rng.gauss(0, 0.03))
            if step % 2 == 0
            else None,
            answer_share=share(trial.answer_share, step),
            displaced_share=share(trial.displaced_share, step),
        )
        for step in range(trial.reward[-1][0] + 1)
    ]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", TRIALS)
def test_trials(name: str, seed: int, run: Callable[..., Any]) -> None:
    trial = TRIALS[name]
    reports = run(log_of(trial, seed))
    if trial.lost is None:
        assert {report.phase for report in reports} == {Phase.HEALTHY}
        return
    accelerating = [step for step, report in enumerate(reports) if report.phase.number >= Phase.ACCELERATION.number]
    assert accelerating
    assert accelerating[0] <= trial.lost + 12
    assert reports[-1].phase is Phase.COLLAPSED


@pytest.mark.parametrize("seed", range(3))
def test_a_trial_that_decays_from_the_start_is_met_with_a_shorter_warm_up(seed: int, run: Callable[..., Any]) -> None:
    log = log_of(TRIALS["constant 6e-4"], seed)
    default = run(log)
    eager = run(log, PhaseConfig(warmup_steps=10, recent=3))
    first = [
        next(step for step, r in enumerate(reports) if r.phase is not Phase.HEALTHY) for reports in (default, eager)
    ]
    assert first[1] < first[0]


def log_from(name: str) -> list[PhaseSignals]:
    lines = (Path(__file__).parent / "data" / f"{name}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [signals_from_metrics(row["step"], row["data"]) for row in rows]


@pytest.mark.parametrize("settings", [PhaseConfig(), PhaseConfig(warmup_steps=10, recent=3)])
def test_a_run_that_collapsed(settings: PhaseConfig, run: Callable[..., Any]) -> None:
    log = log_from("collapses")
    reports = run(log, settings)
    first = {
        phase: next(signals.step for signals, report in zip(log, reports, strict=True) if report.phase is phase)
        for phase in (Phase.STAGNATION, Phase.DECAY, Phase.COLLAPSED)
    }
    # The mean reward of five steps fell below a quarter of its best at step 30.
    assert first[Phase.STAGNATION] < first[Phase.DECAY] < 30
    assert 30 <= first[Phase.COLLAPSED] <= 34
    assert reports[-1].phase is Phase.COLLAPSED


def test_a_run_that_held_its_reward_while_its_likelihood_fell(run: Callable[..., Any]) -> None:
    reports = run(log_from("holds"))
    assert [report.phase for report in reports if report.changed] == [Phase.STAGNATION, Phase.DECAY]
