"""The collapse detector: names the phase of a run from its signals, one update a step.

How it judges, in words:

* Five quantities are watched: the likelihood of a fixed set of correct trajectories (the probe set), the entropy,
  the share of displaced actions, the share of answers, and the reward. Nothing is compared with a fixed number:
  each has a running baseline, the median of its readings of the last ``window`` healthy steps; for reward and
  answers, the best such median so far. Its level is the median of its latest ``recent`` readings.
* A quantity counts when it is further from its baseline than ``noise`` standard deviations of its own noise. It
  then scores 1 point past its first ratio and 2 past its second.
* 1 point is stagnation, 2 are decay, 4 are acceleration: no quantity alone can announce more than decay. Reward or
  answers past their third ratio (or so for ``lost_steps``, whatever the noise) mean collapsed, and so does a value
  that is not finite.
* The reward's points count only beside another's, since harder questions lower it too. The likelihood of the step's
  own correct trajectories rose in some runs that collapsed: it only turns another's single point into decay.
  Gradient norms told nothing in our trials and are not used.
* A phase is entered when ``persist_steps`` of the latest ``persist_window`` steps show it or a worse one, and left
  when ``recovery_steps`` steps in a row look better. Baselines learn in healthy steps only.
* No verdict in the first ``warmup_steps`` steps, nor from a quantity with fewer than ``3 * recent`` readings.
  Missing quantities are not used; values that are not finite are reported at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from verl_llds.diagnostics.baseline import RunningBaseline
from verl_llds.diagnostics.quantities import OWN_LIKELIHOOD, WATCHED, Movement
from verl_llds.diagnostics.settings import PhaseConfig
from verl_llds.diagnostics.signals import Phase, PhaseSignals, signals_from_metrics

__all__ = ["Phase", "PhaseDetector", "PhaseReport", "PhaseSignals", "signals_from_metrics"]

_LOST = 3
"""Ratios a quantity is past when it means collapse."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseReport:
    """The detector's verdict on one step."""

    phase: Phase
    """The phase after this step."""
    previous: Phase
    """The phase before it."""
    changed: bool
    """Whether the two differ."""
    moved: tuple[str, ...]
    """One sentence for each quantity that is away from its baseline in this step: its value and its baseline.

    May name some before the phase changes, and none while a phase waits for its recovery.
    """
    advice: str
    """What to try, by what moved; empty while healthy and where nothing has moved."""

    def __str__(self) -> str:
        """Return the report as one line."""
        change = f"phase {self.phase.value}" + (f" (was {self.previous.value})" if self.changed else "")
        parts = [change, *self.moved, *([f"try: {self.advice}"] if self.advice else [])]
        return "; ".join(parts)


class PhaseDetector:
    """Names the phase of a run from its signals, one update a step; see the module for the rules."""

    def __init__(self, settings: PhaseConfig) -> None:
        self.settings = settings
        self.phase = Phase.HEALTHY
        self._baselines = {
            quantity: RunningBaseline(settings, keep_best=quantity.may_rise) for quantity in (*WATCHED, OWN_LIKELIHOOD)
        }
        self._verdicts: deque[Phase] = deque(maxlen=max(settings.persist_window, settings.recovery_steps))
        self._num_lost = dict.fromkeys((quantity.signal for quantity in self._baselines), 0)
        self._num_steps = 0
        self._num_healthy = 0
        self._last_step: int | None = None
        self._last_healthy_step: int | None = None

    def update(self, signals: PhaseSignals) -> PhaseReport:
        """Take one step's signals and return the verdict."""
        assert self._last_step is None or signals.step > self._last_step, "steps rise"
        self._last_step = signals.step
        self._learn(signals)
        moved = self._moved()
        verdict = Phase.COLLAPSED if signals.broken else _verdict(moved)
        self._verdicts.append(verdict)
        previous, self.phase = self.phase, Phase.COLLAPSED if signals.broken else self._settled()
        if verdict is Phase.HEALTHY and self.phase is Phase.HEALTHY:
            self._last_healthy_step = signals.step
        sentences = [one.quantity.sentence(one.deviation) for one in moved]
        remedies = [one.quantity.remedy for one in moved]
        if signals.broken:
            sentences.insert(0, "a log-probability or another signal of this step is not finite")
            remedies.insert(0, "lower the learning rate")
        return PhaseReport(
            phase=self.phase,
            previous=previous,
            changed=self.phase is not previous,
            moved=tuple(sentences),
            advice=self._advice(remedies),
        )

    def _learn(self, signals: PhaseSignals) -> None:
        healthy = self.phase is Phase.HEALTHY
        self._num_steps += 1
        self._num_healthy += healthy
        for quantity, baseline in self._baselines.items():
            reading = quantity.reading(signals)
            if reading is not None:
                baseline.add(reading, signals.step, self._num_healthy, healthy=healthy)

    def _moved(self) -> list[Movement]:
        """Return the quantities that score, with their points."""
        if self._num_steps <= self.settings.warmup_steps:
            return []
        assert self._last_step is not None
        moved = []
        for quantity, baseline in self._baselines.items():
            deviation = baseline.deviation(self._last_step)
            if deviation is None:
                continue
            is_low = quantity.is_lost(deviation, self.settings)
            self._num_lost[quantity.signal] = self._num_lost[quantity.signal] + 1 if is_low else 0
            is_lost = self._num_lost[quantity.signal] >= self.settings.lost_steps
            points = _LOST if is_lost else quantity.points(deviation, self.settings)
            if points:
                moved.append(Movement(quantity, deviation, points))
        return moved

    def _settled(self) -> Phase:
        """Return the phase that the latest verdicts agree on, slower to leave than to enter."""
        latest = list(self._verdicts)[-self.settings.persist_window :]
        for phase in reversed(Phase):
            num_showing = sum(verdict.number >= phase.number for verdict in latest)
            if phase.number > self.phase.number and num_showing >= self.settings.persist_steps:
                return phase
        calm = list(self._verdicts)[-self.settings.recovery_steps :]
        worst = max(calm, key=lambda phase: phase.number)
        return worst if worst.number < self.phase.number else self.phase

    def _advice(self, remedies: list[str]) -> str:
        if self.phase is Phase.HEALTHY or not remedies:
            return ""
        if self.phase in (Phase.ACCELERATION, Phase.COLLAPSED):
            healthy = self._last_healthy_step
            remedies.append(
                "start again with these changes, since no step was healthy"
                if healthy is None
                else f"roll back to the last checkpoint not after step {healthy}, the last healthy one"
            )
        return "; ".join(dict.fromkeys(remedies))

    def state_dict(self) -> dict[str, Any]:
        """Return everything a resumed run needs, of JSON types."""
        return {
            "phase": self.phase.value,
            "verdicts": [verdict.value for verdict in self._verdicts],
            "num_lost": dict(self._num_lost),
            "num_steps": self._num_steps,
            "num_healthy": self._num_healthy,
            "last_step": self._last_step,
            "last_healthy_step": self._last_healthy_step,
            "baselines": {quantity.signal: baseline.state_dict() for quantity, baseline in self._baselines.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.phase = Phase(state["phase"])
        self._verdicts = deque(map(Phase, state["verdicts"]), maxlen=self._verdicts.maxlen)
        self._num_lost = dict(state["num_lost"])
        self._num_steps = state["num_steps"]
        self._num_healthy = state["num_healthy"]
        self._last_step = state["last_step"]
        self._last_healthy_step = state["last_healthy_step"]
        for quantity, baseline in self._baselines.items():
            baseline.load_state_dict(state["baselines"][quantity.signal])


def _verdict(moved: list[Movement]) -> Phase:
    """Return what one step shows by itself."""
    if any(one.points == _LOST for one in moved):
        return Phase.COLLAPSED
    if all(one.quantity.supports_only for one in moved):
        return Phase.HEALTHY
    total = sum(one.points for one in moved if one.quantity is not OWN_LIKELIHOOD)
    if total >= 4:
        return Phase.ACCELERATION
    if total >= 2 or any(one.quantity is OWN_LIKELIHOOD for one in moved):
        return Phase.DECAY
    return Phase.STAGNATION
