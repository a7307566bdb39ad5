"""What the live view shows of a run at one moment, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from verl_llds.diagnostics.signals import Phase

_RECENT = 20
"""Steps whose mean duration tells when a run will end."""

_SCORE = "val-core/"

_OVERDUE = 5.0
"""Times its usual duration that a step may take before the view says so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantity:
    """One line of the view."""

    title: str
    """What it is called; unique."""
    names: tuple[str, ...]
    """Metrics it is read from: the first that the run has."""
    digits: int = 3
    """Significant digits shown."""


QUANTITIES = (
    Quantity(title="reward", names=("critic/score/mean", "critic/rewards/mean")),
    Quantity(title="log-likelihood, correct", names=("actor/llds/log_prob/correct/old", "llds/log_prob/correct/old")),
    Quantity(title="log-likelihood, probe", names=("llds/probe/log_prob",)),
    Quantity(title="log-likelihood, incorrect", names=("actor/llds/log_prob/incorrect/old",)),
    Quantity(title="entropy", names=("actor/entropy",)),
    Quantity(title="gradient norm", names=("actor/grad_norm",)),
    Quantity(title="LLDS penalty", names=("actor/llds/penalty",)),
    Quantity(title="tokens under open gate", names=("actor/llds/open_token_frac",)),
    Quantity(title="answers", names=("search/answer_share",)),
    Quantity(title="valid searches", names=("search/valid_searches",)),
    Quantity(title="failed trajectories", names=("search/failure_ratio",)),
    Quantity(title="search latency p99, s", names=("search/latency_s/p99",)),
    Quantity(title="response length", names=("response_length/mean",)),
    Quantity(title="step time, s", names=("timing_s/step",)),
)
"""What is shown, in order, of what a run logs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One quantity with its history."""

    quantity: Quantity
    """Which."""
    name: str
    """The metric that it is read from, the same at all steps."""
    steps: list[int]
    """Steps that have a value."""
    values: list[float]
    """Of each of them; NaN where it was not finite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """All that is shown."""

    step: int
    """The latest step."""
    total_steps: int | None
    """Of the whole run; None if nobody knows."""
    phase: Phase | None
    """The detector's verdict; None without it."""
    phase_since: int | None
    """The step at which it began."""
    seconds_per_step: float | None
    """Mean of the latest steps, evaluations and checkpoints included."""
    scores: dict[str, float]
    """The latest evaluation: verl's core metrics by name."""
    lines: list[Line]
    """Quantities that the run logs."""

    def eta_s(self, age_s: float) -> float | None:
        """Return the seconds until the end, ``age_s`` after the latest step was logged; None if nobody knows."""
        if self.total_steps is None or self.seconds_per_step is None:
            return None
        return max(0.0, (self.total_steps - self.step) * self.seconds_per_step - age_s)

    def is_finished(self) -> bool:
        """Return whether the last step has been logged."""
        return self.total_steps is not None and self.step >= self.total_steps

    def is_overdue(self, age_s: float) -> bool:
        """Return whether the next step takes far longer than steps do, so that the run may have ended or hang."""
        usual = self.seconds_per_step
        return not self.is_finished() and usual is not None and age_s > max(60.0, _OVERDUE * usual)


def make_frame(steps: Mapping[int, Mapping[str, float]], total_steps: int | None = None) -> Frame:
    """Return what to show of a run's metrics.

    Args:
        steps: values by name of each step, ascending; at least one.
        total_steps: of the whole run; None takes it from what the run logs, if it does.
    """
    assert steps, "there is something to show"
    phases = [(step, round(values["llds/phase"])) for step, values in steps.items() if _finite(values, "llds/phase")]
    logged = [int(values["llds/total_steps"]) for values in steps.values() if _finite(values, "llds/total_steps")]
    return Frame(
        step=max(steps),
        total_steps=total_steps if total_steps is not None else (logged[-1] if logged else None),
        phase=_phase(phases[-1][1]) if phases else None,
        phase_since=_since(phases),
        seconds_per_step=_seconds_per_step(steps),
        scores=_scores(steps),
        lines=[line for quantity in QUANTITIES if (line := _line(steps, quantity)) is not None],
    )


def _line(steps: Mapping[int, Mapping[str, float]], quantity: Quantity) -> Line | None:
    for name in quantity.names:
        found = [(step, values[name]) for step, values in steps.items() if name in values]
        if found:
            steps_found, values_found = zip(*found, strict=True)
            return Line(quantity=quantity, name=name, steps=list(steps_found), values=list(values_found))
    return None


def _phase(number: int) -> Phase | None:
    return next((phase for phase in Phase if phase.number == number), None)


def _since(phases: list[tuple[int, int]]) -> int | None:
    since = None
    for step, number in reversed(phases):
        if number != phases[-1][1]:
            break
        since = step
    return since


def _seconds_per_step(steps: Mapping[int, Mapping[str, float]]) -> float | None:
    timed = [values for values in steps.values() if _finite(values, "timing_s/step")][-_RECENT:]
    if not timed:
        return None
    total = sum(values["timing_s/step"] + values.get("timing_s/testing", 0.0) for values in timed)
    return total / len(timed)


def _scores(steps: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    for values in reversed(list(steps.values())):
        found = {
            name.removeprefix("val-core/"): value for name, value in values.items() if name.startswith("val-core/")
        }
        if found:
            return found
    return {}


def _finite(values: Mapping[str, float], name: str) -> bool:
    return name in values and math.isfinite(values[name])
