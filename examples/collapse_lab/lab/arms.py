"""The table of arms and presets: what every run of the lab is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from lab.cold_start import ColdStartSettings
from lab.objective import Anchor, ObjectiveSettings
from verl_llds.errors import ConfigError


class Reward(str, Enum):
    """What the policy is rewarded for."""

    EXACT_MATCH = "exact_match"
    """The answer."""
    SHUFFLED = "shuffled"
    """The exact matches of the step, dealt out to its trajectories at random: the same rate, no information."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """Everything a run depends on but its seed."""

    cold_start: ColdStartSettings = field(default_factory=ColdStartSettings)
    """The policy it starts from."""
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    """What its updates minimise."""
    reward: Reward = Reward.EXACT_MATCH
    """Where advantages come from; the reward that is reported is always the exact match."""
    steps: int = 80
    """Rollouts, each followed by the updates on it."""
    learning_rate: float = 8e-4
    """AdamW's rate after the warm-up."""
    warmup_steps: int = 5
    """Steps over which the rate rises linearly."""
    num_prompts: int = 12
    """Questions a step."""
    group_size: int = 5
    """Trajectories a question."""
    updates: int = 10
    """Mini-batches a rollout is split into, one optimizer step each."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""


PRESETS: Mapping[str, RunSettings] = {
    "protocol": RunSettings(),
    "ramp": RunSettings(steps=95, learning_rate=1.6e-3, warmup_steps=80, num_prompts=20),
}
"""Where the arms are compared: a constant rate at which GRPO collapses within 30 steps, and one that rises to it."""


def _with_llds(settings: RunSettings, **llds: float | str) -> RunSettings:
    return _objective(settings, llds={"coef": 0.2, **llds})


def _objective(settings: RunSettings, **terms: object) -> RunSettings:
    return replace(settings, objective=replace(settings.objective, **terms))  # type: ignore[arg-type]


LOW_LEARNING_RATE = 5e-4
"""Rate at which plain GRPO moves the fixed probe about as far as LLDS does at that of ``protocol``; see RESULTS.md."""


def arms(preset: str) -> dict[str, RunSettings]:
    """Return the arms of a preset by name; ``low_lr`` is calibrated for ``protocol`` alone.

    Raises:
        ConfigError: there is no such preset.
    """
    if preset not in PRESETS:
        raise ConfigError(f"no preset {preset!r}: choose one of {', '.join(PRESETS)}")
    base = PRESETS[preset]
    made = {
        "grpo": base,
        "llds_action": _with_llds(base),
        "llds_response": _with_llds(base, gate="response"),
        "llds_token": _with_llds(base, gate="token"),
        "llds_ma": _with_llds(base, answer_weight="paper"),
        "llds_ma_zero": _with_llds(base, answer_weight=0.0),
        "llds_positive": _with_llds(base, preserve="positive"),
        "llds_correct": _with_llds(base, preserve="correct"),
        "random_reward": replace(base, reward=Reward.SHUFFLED),
        "random_reward_llds": replace(_with_llds(base), reward=Reward.SHUFFLED),
        "kl_old": _objective(base, anchor=Anchor.K3, anchor_coef=0.2),
        "abs_old": _objective(base, anchor=Anchor.ABSOLUTE, anchor_coef=0.2),
        "dual_clip": _objective(base, dual_clip=3.0),
        "two_updates": replace(base, updates=2),
        "entropy_001": _objective(base, entropy_coef=0.001),
        "entropy_01": _objective(base, entropy_coef=0.01),
    }
    if preset == "protocol":
        made["low_lr"] = replace(base, learning_rate=LOW_LEARNING_RATE)
    return made
