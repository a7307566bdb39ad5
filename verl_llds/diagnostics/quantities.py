"""The quantities the collapse detector watches: when each scores, how it is put in words, what to try."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from verl_llds.diagnostics.baseline import Deviation
from verl_llds.diagnostics.settings import PhaseConfig
from verl_llds.diagnostics.signals import PhaseSignals


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantity:
    """One quantity; its ratios are those of `PhaseConfig`, rising for one that must not rise."""

    signal: str
    """The field of `PhaseSignals` it is read from."""
    label: str
    """What it is called in messages."""
    ratios: str
    """The field of `PhaseConfig` that holds its ratios: for 1 and 2 points, and a third for collapse."""
    remedy: str
    """What to try where it has moved."""
    is_log_prob: bool = False
    """Whether readings are log-probabilities; ratios are then those of negative ones."""
    supports_only: bool = False
    """Whether its points count only beside those of another quantity."""
    may_rise: bool = False
    """Whether rising is good, so that it is compared with its best and falls past its ratios."""

    def reading(self, signals: PhaseSignals) -> float | None:
        """Return the step's value with the sign ratios need; None where there is none or it is not finite."""
        value: float | None = getattr(signals, self.signal)
        if value is None or not math.isfinite(value):
            return None
        return -value if self.is_log_prob else value

    def points(self, deviation: Deviation, settings: PhaseConfig) -> int:
        """Return how many of its ratios the quantity is past; 3 for one that is lost."""
        if not deviation.significant:
            return 0
        ratios: tuple[float, ...] = getattr(settings, self.ratios)
        if self.may_rise:
            return sum(deviation.ratio <= ratio for ratio in ratios)
        return sum(deviation.ratio >= ratio for ratio in ratios)

    def is_lost(self, deviation: Deviation, settings: PhaseConfig) -> bool:
        """Return whether the quantity is past the ratio that means collapse, noise or not."""
        return self.may_rise and deviation.ratio <= getattr(settings, self.ratios)[-1]

    def sentence(self, deviation: Deviation) -> str:
        """Return the name, the level and the baseline."""
        sign = -1 if self.is_log_prob else 1
        baseline = "best" if self.may_rise else "baseline"
        return (
            f"{self.label} is {sign * deviation.level:.3g}, "
            f"{deviation.ratio:.2f} times its {baseline} of {sign * deviation.baseline:.3g}"
        )


class Movement(NamedTuple):
    """A quantity away from its baseline in one step."""

    quantity: Quantity
    """Which."""
    deviation: Deviation
    """How far."""
    points: int
    """What it scores, see `Quantity.points`."""


WATCHED = (
    Quantity(
        signal="probe_log_prob",
        label="log-probability per token of the probe set",
        ratios="probe_ratios",
        is_log_prob=True,
        remedy="use algorithm=grpo_llds or raise its algorithm.llds.coef",
    ),
    Quantity(
        signal="entropy",
        label="entropy of the policy",
        ratios="entropy_ratios",
        remedy="lower the learning rate",
    ),
    Quantity(
        signal="displaced_share",
        label="share of displaced actions of correct trajectories",
        ratios="displaced_ratios",
        remedy="make fewer updates per rollout (a larger ppo_mini_batch_size), or try algorithm.llds.gate=token",
    ),
    Quantity(
        signal="answer_share",
        label="share of trajectories with an answer",
        ratios="answer_ratios",
        may_rise=True,
        remedy="look at the step's trajectories for turns that break the protocol",
    ),
    Quantity(
        signal="reward",
        label="reward",
        ratios="reward_ratios",
        may_rise=True,
        supports_only=True,
        remedy="look at the step's trajectories, and check the retriever and the data",
    ),
)

OWN_LIKELIHOOD = Quantity(
    signal="correct_log_prob",
    label="log-probability per token of the step's correct trajectories",
    ratios="probe_ratios",
    is_log_prob=True,
    supports_only=True,
    remedy="use algorithm=grpo_llds or raise its algorithm.llds.coef",
)
"""Supports a verdict that another quantity has begun; it rose in some runs that collapsed."""
