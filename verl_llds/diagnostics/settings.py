"""Settings of the diagnostics, checked once where they are made; imports neither torch nor verl."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise

from verl_llds.diagnostics.signals import Phase
from verl_llds.errors import ConfigError
from verl_llds.fields import check_count, default_of, is_number, known_values
from verl_llds.trajectories.settings import TrajectoriesConfig

_PHASES = "diagnostics.phases"
_ALARMING = tuple(phase.value for phase in Phase if phase is not Phase.HEALTHY)


class OnPhase(str, Enum):
    """What the trainer does when the detector enters a phase."""

    WARN = "warn"
    """Log what moved and what to try."""
    CHECKPOINT = "checkpoint"
    """Warn and save a checkpoint."""
    STOP = "stop"
    """Warn and stop the run with a `verl_llds.errors.CollapseError`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseConfig:
    """The collapse detector, see `verl_llds.diagnostics.phases`; the node ``diagnostics.phases``.

    Ratios compare the level of a quantity, the median of its latest readings, with its baseline. Where no other
    source is named, a default is one at which the synthetic healthy logs of our tests raise no alarm.
    """

    window: int = 50
    """Healthy steps a baseline looks back on. Longer notices slower changes and forgives less drift."""

    warmup_steps: int = 20
    """Steps before the first verdict; values that are not finite are reported at once.

    Lower it where a run is expected to collapse within a few dozen steps. A quantity also needs ``3 * recent``
    readings before it counts.
    """

    recent: int = 5
    """Readings whose median is the level: outliers that are fewer than half of them leave no trace."""

    persist_steps: int = 4
    """Steps of the latest ``persist_window`` that must show a phase, or a worse one, before it is entered."""

    persist_window: int = 6
    """See ``persist_steps``."""

    recovery_steps: int = 10
    """Steps in a row that must look better before a phase is left."""

    lost_steps: int = 10
    """Steps below its last ratio after which reward or answers are lost, however noisy their baseline."""

    noise: float = 4.0
    """Standard deviations of the level's own noise that it must be away from its baseline to count."""

    probe_ratios: tuple[float, float] = (1.2, 1.6)
    """Growth of the negative log-likelihood of the probe set that scores 1 and 2 points.

    In our trials it grew by less than 1.1 over 90 steps at a low learning rate and by 2 to 40 in runs that
    collapsed, but also by 2 and more in some that kept their reward: a warning, not a verdict. The first ratio
    also holds for the likelihood of the step's own correct trajectories.
    """

    entropy_ratios: tuple[float, float] = (1.35, 1.7)
    """Growth of the entropy that scores 1 and 2 points. It passed 1.5 in most runs of ours that collapsed."""

    displaced_ratios: tuple[float, float] = (1.5, 2.0)
    """Growth of the share of displaced actions that scores 1 and 2 points.

    It rose from about 0.2 to between 0.4 and 0.55 in our trials; in the paper's figure 3 more than half of the
    questions are displaced before the collapse.
    """

    answer_ratios: tuple[float, float, float] = (0.9, 0.8, 0.5)
    """Part left of the best answer share that scores 1 and 2 points, and that means collapse."""

    reward_ratios: tuple[float, float, float] = (0.7, 0.5, 0.25)
    """Part left of the best reward that scores 1 and 2 points, and that means collapse.

    The points count only beside those of another quantity, since harder questions lower a reward too.
    """

    def __post_init__(self) -> None:
        """Check every field."""
        for name in ("recent", "persist_steps", "recovery_steps", "lost_steps"):
            check_count(_PHASES, self, name, 1)
        check_count(_PHASES, self, "warmup_steps", 0)
        check_count(_PHASES, self, "window", self.recent)
        check_count(_PHASES, self, "persist_window", self.persist_steps)
        if not (is_number(self.noise) and 0 <= self.noise < math.inf):
            raise ConfigError(f"{_PHASES}.noise must be a number of at least 0, got {self.noise!r}: use 4")
        for name in ("probe_ratios", "entropy_ratios", "displaced_ratios"):
            self._check_ratios(name, 2, rising=True)
        for name in ("answer_ratios", "reward_ratios"):
            self._check_ratios(name, 3, rising=False)

    def _check_ratios(self, name: str, size: int, *, rising: bool) -> None:
        value = getattr(self, name)
        # Hydra's lists are no lists of Python's.
        numbers = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
        right = len(numbers) == size and all(is_number(number) and 0 < number < math.inf for number in numbers)
        order = [1, *numbers] if rising else [1, *numbers][::-1]
        if not right or any(low >= high for low, high in pairwise(order)):
            how = "above 1, rising" if rising else "between 0 and 1, falling"
            raise ConfigError(
                f"{_PHASES}.{name} must be a list of {size} numbers {how}, got {value!r}: "
                f"use {list(default_of(self, name))}"
            )
        # A list from YAML would make the settings mutable.
        object.__setattr__(self, name, tuple(numbers))

    @classmethod
    def from_mapping(cls, values: object) -> PhaseConfig:
        """Build the settings from the node ``diagnostics.phases``.

        Raises:
            ConfigError: for an unknown key (the known ones are named) or a value out of range.
        """
        return cls(**known_values(_PHASES, cls, values))


@dataclass(frozen=True, kw_only=True, slots=True)
class DiagnosticsConfig:
    """What is measured besides the loss, and what follows from it; the node ``diagnostics``."""

    enabled: bool = True
    """Whether likelihood facts are collected and the detector runs."""

    post_update_every: int = 0
    """Every this many steps, one forward pass after the update measures the old against the new policy on the
    step's own trajectories; 0 = never."""

    probe_every: int = 0
    """Every this many steps, the likelihood of a fixed set of correct trajectories is measured; 0 = off.

    The detector's best signal. It counts after ``3 * phases.recent`` measurements.
    """

    probe_size: int = 32
    """Trajectories in the probe set."""

    correct_reward: float = 1.0
    """A trajectory with at least this reward is correct."""

    on_phase: Mapping[str, str] = field(default_factory=dict)
    """Action on entering ``stagnation``, ``decay``, ``acceleration`` and ``collapsed``: ``warn``, ``checkpoint``
    or ``stop``, see `OnPhase`; ``warn`` where none is given."""

    phases: PhaseConfig = field(default_factory=PhaseConfig)
    """The detector."""

    trajectories: TrajectoriesConfig = field(default_factory=TrajectoriesConfig)
    """What is kept token by token, whether the diagnostics are enabled or not."""

    def __post_init__(self) -> None:
        """Check every field, and name an action for each phase."""
        if not isinstance(self.enabled, bool):
            raise ConfigError(f"diagnostics.enabled must be true or false, got {self.enabled!r}: use true")
        for name in ("post_update_every", "probe_every"):
            check_count("diagnostics", self, name, 0)
            if getattr(self, name) > self.phases.window:
                raise ConfigError(
                    f"diagnostics.{name} is {getattr(self, name)}, more than {_PHASES}.window ({self.phases.window}), "
                    "so the detector would drop each measurement before the next: measure more often, or use 0"
                )
        check_count("diagnostics", self, "probe_size", 1)
        if not (is_number(self.correct_reward) and math.isfinite(self.correct_reward)):
            raise ConfigError(f"diagnostics.correct_reward must be a number, got {self.correct_reward!r}: use 1.0")
        actions = _checked_actions(self.on_phase)
        object.__setattr__(self, "on_phase", {name: actions.get(name, OnPhase.WARN.value) for name in _ALARMING})

    def is_measured(self, step: int) -> bool:
        """Return whether all trajectories of a step are measured after its update."""
        return self.enabled and self.post_update_every > 0 and step % self.post_update_every == 0

    def action(self, phase: Phase) -> OnPhase:
        """Return what to do on entering an alarming phase."""
        return OnPhase(self.on_phase[phase.value])

    @classmethod
    def from_mapping(cls, values: object) -> DiagnosticsConfig:
        """Build the settings from the run's ``diagnostics`` node.

        Raises:
            ConfigError: for an unknown key (the known ones are named) or a value out of range.
        """
        known = known_values("diagnostics", cls, values)
        phases = PhaseConfig.from_mapping(known.get("phases"))
        trajectories = TrajectoriesConfig.from_mapping(known.get("trajectories"))
        return cls(**{**known, "phases": phases, "trajectories": trajectories})


def _checked_actions(values: object) -> dict[str, str]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"diagnostics.on_phase must be a mapping with phases {', '.join(_ALARMING)}, got {values!r}")
    for name, action in values.items():
        if name not in _ALARMING:
            raise ConfigError(
                f"diagnostics.on_phase has no phase {name}; it has {', '.join(_ALARMING)}: "
                "correct the name or remove it"
            )
        if action not in tuple(OnPhase):
            choices = ", ".join(choice.value for choice in OnPhase)
            raise ConfigError(f"diagnostics.on_phase.{name} must be one of {choices}, got {action!r}: use warn")
    return {name: OnPhase(action).value for name, action in values.items()}
