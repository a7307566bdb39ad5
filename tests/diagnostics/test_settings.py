from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, asdict
from typing import Any

import pytest
import yaml

from verl_llds.diagnostics.settings import DiagnosticsConfig, OnPhase, PhaseConfig
from verl_llds.diagnostics.signals import Phase
from verl_llds.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("enabled", "yes", ["true or false", "'yes'"]),
        ("enabled", 1, ["true or false"]),
        ("post_update_every", -1, ["at least 0", "use 0"]),
        ("post_update_every", 2.5, ["whole number", "2.5"]),
        ("post_update_every", 51, ["diagnostics.phases.window (50)", "more often"]),
        ("probe_every", True, ["whole number", "True"]),
        ("probe_every", "5", ["whole number", "'5'", "without quotes"]),
        ("probe_every", 51, ["diagnostics.phases.window (50)", "more often"]),
        ("probe_size", 0, ["at least 1", "use 32"]),
        ("correct_reward", "1", ["a number", "'1'"]),
        ("correct_reward", math.nan, ["a number", "nan"]),
        ("on_phase", "stop", ["a mapping with phases stagnation, decay, acceleration, collapsed", "'stop'"]),
        ("on_phase", {"healthy": "stop"}, ["no phase healthy", "it has stagnation, decay"]),
        ("on_phase", {"collaps": "stop"}, ["no phase collaps;", "correct the name"]),
        ("phases", 3, ["diagnostics.phases must be a mapping"]),
    ],
)
def test_wrong_values_are_refused_with_a_remedy(name: str, value: object, said: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        DiagnosticsConfig.from_mapping({name: value})
    for part in [f"diagnostics.{name} ", *said]:
        assert part in str(refused.value)


@pytest.mark.parametrize("action", ["halt", True, None, "STOP"])
def test_actions_are_three(action: object) -> None:
    with pytest.raises(ConfigError, match=r"on_phase.decay must be one of warn, checkpoint, stop.*use warn"):
        DiagnosticsConfig.from_mapping({"on_phase": {"decay": action}})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("window", 4, ["at least 5", "use 50"]),
        ("window", 50.0, ["whole number", "50.0"]),
        ("warmup_steps", -1, ["at least 0", "use 20"]),
        ("recent", 0, ["at least 1", "use 5"]),
        ("persist_steps", 0, ["at least 1", "use 4"]),
        ("persist_window", 3, ["at least 4", "use 6"]),
        ("recovery_steps", None, ["whole number", "None", "use 10"]),
        ("lost_steps", 0, ["at least 1", "use 10"]),
        ("noise", -0.1, ["at least 0", "use 4"]),
        ("noise", math.inf, ["inf"]),
        ("noise", "4", ["'4'"]),
        ("probe_ratios", 1.2, ["a list of 2 numbers above 1, rising", "use [1.2, 1.6]"]),
        ("probe_ratios", [1.6, 1.2], ["rising", "[1.6, 1.2]"]),
        ("probe_ratios", [1.0, 1.2], ["above 1"]),
        ("entropy_ratios", [1.2, 1.4, 1.8], ["a list of 2"]),
        ("entropy_ratios", [1.2, math.inf], ["inf"]),
        ("displaced_ratios", [1.2, "2"], ["'2'"]),
        ("displaced_ratios", "12", ["'12'"]),
        ("answer_ratios", [0.9, 0.8], ["a list of 3 numbers between 0 and 1, falling", "use [0.9, 0.8, 0.5]"]),
        ("answer_ratios", [0.5, 0.8, 0.9], ["falling"]),
        ("reward_ratios", [1.0, 0.5, 0.25], ["between 0 and 1"]),
        ("reward_ratios", [0.7, 0.5, 0.0], ["between 0 and 1"]),
        ("reward_ratios", [0.7, math.nan, 0.1], ["nan"]),
    ],
)
def test_wrong_values_of_the_detector_are_refused(name: str, value: object, said: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        DiagnosticsConfig.from_mapping({"phases": {name: value}})
    for part in [f"diagnostics.phases.{name} must", "use ", *said]:
        assert part in str(refused.value)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"diagnostics has no setting 1, probe; it has enabled, .*trajectories: correct"
    ):
        DiagnosticsConfig.from_mapping({"probe": 5, 1: 2, "enabled": True})
    with pytest.raises(ConfigError, match=r"diagnostics.phases has no setting windows; it has window, warmup_steps"):
        DiagnosticsConfig.from_mapping({"phases": {"windows": 5}})


@pytest.mark.parametrize("node", [[], "off", 3])
def test_no_mapping(node: Any) -> None:
    with pytest.raises(ConfigError, match="diagnostics must be a mapping with settings enabled, post_update_every"):
        DiagnosticsConfig.from_mapping(node)


def test_defaults() -> None:
    assert DiagnosticsConfig.from_mapping(None) == DiagnosticsConfig.from_mapping({}) == DiagnosticsConfig()
    assert DiagnosticsConfig.from_mapping({"phases": None}) == DiagnosticsConfig()
    assert {DiagnosticsConfig().action(phase) for phase in Phase if phase is not Phase.HEALTHY} == {OnPhase.WARN}


def test_the_defaults_survive_yaml() -> None:
    written = yaml.safe_dump(asdict(DiagnosticsConfig()) | {"phases": {"probe_ratios": [1.2, 1.6]}})
    assert DiagnosticsConfig.from_mapping(yaml.safe_load(written)) == DiagnosticsConfig()


def test_values_from_yaml() -> None:
    settings = DiagnosticsConfig.from_mapping(
        yaml.safe_load(
            """
            post_update_every: 5
            probe_every: 10
            correct_reward: 1
            on_phase: {decay: checkpoint, collapsed: stop}
            phases: {window: 30, entropy_ratios: [2, 3]}
            """
        )
    )
    assert (settings.post_update_every, settings.probe_every, settings.correct_reward) == (5, 10, 1)
    assert [settings.action(phase) for phase in list(Phase)[1:]] == ["warn", "checkpoint", "warn", "stop"]
    assert settings.phases == PhaseConfig(window=30, entropy_ratios=(2, 3))


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        DiagnosticsConfig().probe_every = 3  # type: ignore[misc]
    ratios = PhaseConfig(probe_ratios=[1.5, 2]).probe_ratios  # type: ignore[arg-type]
    assert ratios == (1.5, 2)
