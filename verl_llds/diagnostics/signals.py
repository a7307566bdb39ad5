"""What the collapse detector reads each step, and the phases it names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Phase(str, Enum):
    """Where a run stands on the way of Lazy Likelihood Displacement (arXiv 2512.04220 v2, section 5)."""

    HEALTHY = "healthy"
    """No quantity has left its baseline."""
    STAGNATION = "stagnation"
    """The reward holds, but one quantity has begun to move: most often the likelihood of correct trajectories."""
    DECAY = "decay"
    """One quantity has moved far, or two together, while the reward may still hold."""
    ACCELERATION = "acceleration"
    """Several quantities move at once: likelihood falls fast, entropy surges, or reward and answers go."""
    COLLAPSED = "collapsed"
    """The reward or the answers are lost, or a log-probability is not finite."""

    @property
    def number(self) -> int:
        """0 for healthy to 4 for collapsed."""
        return list(Phase).index(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseSignals:
    """One step's readings; None where there is none."""

    step: int
    """Training step; larger than that of the update before."""

    reward: float | None = None
    """Mean reward of the step's trajectories. Not used by the detector while its running best is not above 0."""

    probe_log_prob: float | None = None
    """Mean log-probability per token of a fixed set of correct trajectories."""

    correct_log_prob: float | None = None
    """Mean log-probability per token of the step's own correct trajectories, before the update."""

    entropy: float | None = None
    """Mean entropy of the policy per token, in nats."""

    answer_share: float | None = None
    """Share of trajectories that end in an answer."""

    displaced_share: float | None = None
    """Share of the actions of correct trajectories whose likelihood fell over the update."""

    nonfinite: bool = False
    """Whether a log-probability of a policy token was not finite."""

    @property
    def broken(self) -> bool:
        """Whether the step holds anything that is not finite."""
        readings = (getattr(self, name) for name in _METRICS)
        return self.nonfinite or any(value is not None and not math.isfinite(value) for value in readings)


_METRICS = {
    "reward": ("critic/score/mean",),
    "probe_log_prob": ("llds/probe/log_prob",),
    "correct_log_prob": ("llds/log_prob/correct/old", "actor/llds/log_prob/correct/old"),
    "entropy": ("actor/entropy",),
    "answer_share": ("search/answer_share",),
    "displaced_share": ("llds/displaced_action_frac/correct", "actor/llds/displaced_action_frac/correct"),
}
"""By signal, the metrics it is read from: the first that was logged. Those of the loss cost no forward pass."""

_NONFINITE_METRICS = ("llds/nonfinite_tokens", "llds/probe/nonfinite_tokens", "actor/llds/nonfinite_tokens")


def signals_from_metrics(step: int, data: Mapping[str, Any]) -> PhaseSignals:
    """Read the signals from one step's metrics, as the trainer logs them; absent and null ones become None."""
    readings = {}
    for name, metrics in _METRICS.items():
        logged = [float(data[metric]) for metric in metrics if data.get(metric) is not None]
        if logged:
            readings[name] = logged[0]
    nonfinite = any(float(data.get(metric) or 0) > 0 for metric in _NONFINITE_METRICS)
    return PhaseSignals(step=step, nonfinite=nonfinite, **readings)
