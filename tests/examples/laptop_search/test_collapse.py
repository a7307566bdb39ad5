"""The pair of runs: which overrides an arm gets, and the table that compares them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from collapse import comparison, overrides_of, read_steps
from omegaconf import OmegaConf
from rich.console import Console

from verl_llds.compose import compose_run, validate_run

GIVEN = ["laptop.seed=2", "algorithm.llds.coef=1.0"]


def test_settings_of_llds_reach_the_arm_that_has_them() -> None:
    assert overrides_of("grpo", GIVEN) == ["algorithm=grpo", "laptop.seed=2"]
    assert overrides_of("grpo_llds", GIVEN) == ["algorithm=grpo_llds", *GIVEN]


@pytest.mark.parametrize("arm", ["grpo", "grpo_llds"])
def test_the_arms_differ_in_the_loss_alone(arm: str) -> None:
    config = compose_run(["experiment=laptop_collapse", *overrides_of(arm, GIVEN)])
    validate_run(config)
    values = OmegaConf.to_container(config)
    stock = OmegaConf.to_container(compose_run(["experiment=laptop_collapse", "algorithm=grpo", "laptop.seed=2"]))
    for one in (values, stock):
        assert isinstance(one, dict)
        del one["actor_rollout_ref"]["actor"]["policy_loss"]
        one["algorithm"].pop("llds", None)
    assert values == stock


def test_the_table_takes_the_first_and_the_last_ten_steps(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    rows = [{"step": 0, "data": {"val-core/acc": 0.5}}]
    rows += [
        {"step": step, "data": {"actor/grad_norm": 1.0, "critic/score/mean": float(step > 20)}} for step in range(1, 31)
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps = read_steps(log)
    assert len(steps) == 30
    console = Console(width=120, record=True)
    console.print(comparison({"grpo": steps, "grpo_llds": steps}))
    line = next(line for line in console.export_text().splitlines() if "reward" in line)
    assert line.count("0.000") == 2
    assert line.count("1.000") == 2
