"""Settings of the recording: which steps are due, and what is refused."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import yaml

from verl_llds.compose import compose_run
from verl_llds.diagnostics.settings import DiagnosticsConfig
from verl_llds.errors import ConfigError
from verl_llds.trajectories.settings import TrajectoriesConfig


def test_the_first_step_and_multiples_are_due() -> None:
    assert [step for step in range(1, 12) if TrajectoriesConfig(every=5).is_due(step)] == [1, 5, 10]
    assert not any(TrajectoriesConfig(every=0).is_due(step) for step in range(1, 12))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"every": -1}, "every must be a whole number of at least 0"),
        ({"every": "10"}, "every must be a whole number"),
        ({"max_rows": 0}, "max_rows must be a whole number of at least 1"),
        ({"max_bytes": 1e9}, "max_bytes must be a whole number"),
        ({"post_update": "yes"}, "post_update must be true or false"),
        ({"dir": " "}, "dir must be the path of a folder.*every=0 turns recording off"),
        ({"dir": 3}, "dir must be the path"),
        ({"dir": "/runs/x", "every": 0}, "dir=/runs/x would hold nothing, .*: set every to 10, or dir to null"),
        ({"rows": 3}, "has no setting rows; it has every, dir, max_rows"),
    ],
)
def test_what_cannot_work_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"diagnostics.trajectories.?{message}"):
        DiagnosticsConfig.from_mapping({"trajectories": values})


def test_yaml_has_the_defaults_and_deep_records_every_step() -> None:
    fixed = ["algorithm=grpo_llds", "data.train_batch_size=512", "actor_rollout_ref.rollout.name=vllm"]
    default = DiagnosticsConfig.from_mapping(compose_run(fixed).diagnostics)
    assert default.trajectories == TrajectoriesConfig()
    deep = DiagnosticsConfig.from_mapping(compose_run([*fixed, "diagnostics=deep"]).diagnostics)
    assert deep.trajectories == TrajectoriesConfig(every=1)
    assert TrajectoriesConfig.from_mapping(yaml.safe_load(yaml.safe_dump(asdict(TrajectoriesConfig())))) == (
        TrajectoriesConfig()
    )
