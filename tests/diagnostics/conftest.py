"""Synthetic logs of runs, healthy and collapsing, as functions of a seed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from random import Random

import pytest

from verl_llds.diagnostics.phases import PhaseDetector, PhaseReport
from verl_llds.diagnostics.settings import PhaseConfig
from verl_llds.diagnostics.signals import PhaseSignals

Log = list[PhaseSignals]
Onsets = tuple[int, int, int, int]


def correlated(rng: Random, num: int, std: float, memory: float) -> list[float]:
    """Return AR(1) noise of the given standard deviation; a memory of 0 is white."""
    value = rng.gauss(0, std)
    values = []
    for _ in range(num):
        values.append(value)
        value = memory * value + math.sqrt(1 - memory**2) * rng.gauss(0, std)
    return values


def share(rng: Random, num: int, probability: float) -> float:
    return sum(rng.random() < probability for _ in range(num)) / num


def graded(rng: Random, num_prompts: int, probability: float) -> float:
    """Return the mean reward of five rollouts of each prompt, where prompts differ in difficulty."""
    chances = (rng.betavariate(2 * probability, 2 * (1 - probability)) for _ in range(num_prompts))
    return sum(share(rng, 5, chance) for chance in chances) / num_prompts


@pytest.fixture
def healthy_log() -> Callable[..., Log]:
    """Make the log of a run that learns to a plateau.

    Sixty to a hundred rollouts a step, difficulty that swings, entropy that falls, one reading in fifty an
    outlier, and correlated noise throughout.
    """

    def make(seed: int, *, probe_rises: bool, num_steps: int = 1000) -> Log:
        rng = Random(seed)
        num_prompts = rng.choice([12, 16, 20])
        start, plateau = rng.choice([(0.36, 0.5), (0.1, 0.4), (0.05, 0.35), (0.3, 0.45)])
        learning_time, entropy_time, probe_time = (rng.choice([60, 200, 600]) for _ in range(3))
        entropy_floor = rng.choice([0.3, 0.6, 1.0])
        swings = correlated(rng, num_steps, 0.1, rng.choice([0, 0.5, 0.9]))
        entropy_noise = correlated(rng, num_steps, rng.choice([0.03, 0.06]), rng.choice([0, 0.5, 0.9]))
        probe_noise = correlated(rng, num_steps, rng.choice([0.01, 0.03]), rng.choice([0, 0.5, 0.9]))
        log = []
        for step in range(num_steps):
            chance = start + (plateau - start) * (1 - math.exp(-step / learning_time))
            entropy = 0.7 * (entropy_floor + (1 - entropy_floor) * math.exp(-step / entropy_time))
            progress = min(1.0, step / probe_time)
            nll = 0.3 - 0.12 * progress if probe_rises else 0.16 + 0.04 * progress
            readings = {
                "reward": graded(rng, num_prompts, chance * (1 + swings[step])),
                "entropy": entropy * math.exp(entropy_noise[step]),
                "probe_log_prob": -nll * math.exp(probe_noise[step]),
                "correct_log_prob": -0.3 * math.exp(-0.3 * progress + rng.gauss(0, 0.08)),
                "displaced_share": rng.uniform(0.15, 0.3),
                "answer_share": share(rng, 5 * num_prompts, 0.985),
            }
            if rng.random() < 0.02:
                name = rng.choice(list(readings))
                readings[name] *= rng.choice([0.2, 3.0])
            log.append(PhaseSignals(step=step, **readings))
        return log

    return make


@pytest.fixture
def collapsing_log() -> Callable[..., tuple[Log, Onsets]]:
    """Make the log of a run that goes through the three phases of the paper, and the true onset of each.

    After 60 healthy steps: the negative log-likelihood of the probe set grows by 0.8 % a step for 40 steps, by
    2 % for 40 more, then by 6 % while entropy surges, more than half of the actions are displaced and the reward
    goes; 30 steps later the reward is lost.
    """

    def make(seed: int, *, log_prob_scale: float = 1, entropy_scale: float = 1) -> tuple[Log, Onsets]:
        rng = Random(seed)
        onsets = (60, 100, 140, 170)
        num_steps = 200
        swings = correlated(rng, num_steps, 0.08, 0.5)
        entropy_noise = correlated(rng, num_steps, 0.04, 0.5)
        probe_noise = correlated(rng, num_steps, 0.02, 0.5)
        nll, entropy, displaced, answers, chance = 0.2, 0.7, 0.22, 0.985, 0.3
        log = []
        for step in range(num_steps):
            phase = sum(step >= onset for onset in onsets)
            nll *= (1.0005, 1.008, 1.02, 1.06, 1.03)[phase]
            entropy *= (0.998, 0.999, 1.005, 1.05, 1.0)[phase]
            displaced = (displaced, displaced, displaced + 0.003, min(0.55, displaced + 0.02), 0.5)[phase]
            answers = (answers, answers, answers, max(0.5, answers - 0.012), max(0.2, answers - 0.03))[phase]
            chance = (
                max(0.12, chance - 0.012) if phase == 3 else chance * 0.8 if phase == 4 else min(0.45, chance + 0.002)
            )
            readings = {
                "reward": graded(rng, 20, max(0.01, chance * (1 + swings[step]))),
                "entropy": entropy_scale * entropy * math.exp(entropy_noise[step]),
                "probe_log_prob": -log_prob_scale * nll * math.exp(probe_noise[step]),
                # Sharpening: that of the policy's own correct trajectories rises.
                "correct_log_prob": -log_prob_scale * 0.3 * math.exp(-step / 200 + rng.gauss(0, 0.08)),
                "displaced_share": max(0.0, displaced + rng.gauss(0, 0.04)),
                "answer_share": share(rng, 100, answers),
            }
            log.append(PhaseSignals(step=step, **readings))
        return log, onsets

    return make


@pytest.fixture(scope="session")
def run() -> Callable[..., list[PhaseReport]]:
    """Run a fresh detector over a log."""

    def reports(log: Log, settings: PhaseConfig | None = None) -> list[PhaseReport]:
        detector = PhaseDetector(settings or PhaseConfig())
        return [detector.update(signals) for signals in log]

    return reports


@pytest.fixture(scope="session")
def resume() -> Callable[..., list[PhaseReport]]:
    """Stop a detector after some steps, save it as JSON, and return the reports of the one that goes on."""

    def reports(log: Log, num_before: int, settings: PhaseConfig | None = None) -> list[PhaseReport]:
        before = PhaseDetector(settings or PhaseConfig())
        for signals in log[:num_before]:
            before.update(signals)
        after = PhaseDetector(settings or PhaseConfig())
        after.load_state_dict(json.loads(json.dumps(before.state_dict(), allow_nan=False)))
        return [after.update(signals) for signals in log[num_before:]]

    return reports
