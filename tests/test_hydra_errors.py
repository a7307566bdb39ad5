"""A misspelt name on the command line: one line that says which name is meant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import HydraException

from verl_llds.compose import compose_run, reason


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["search=search_r1", "search.max_failed_ratio=0.2"], "did you mean search.max_failure_ratio?"),
        (
            ["search=search_r1", "++search.reward.metric=em", "search.reward.metrc=f1"],
            "did you mean search.reward.metric?",
        ),
        (["algorithm=grpo_llds", "algorithm.llds.coeff=1"], "did you mean algorithm.llds.coef?"),
        (["actor_rollout_ref.actor.clip_ratio_lo=0.1"], "did you mean actor_rollout_ref.actor.clip_ratio_low?"),
        (["serch=search_r1"], "did you mean search?"),
        (["search=search_r2"], "did you mean search=search_r1?"),
        (["search=nope"], "search has no choice 'nope' (there are search_r1, tool_call)"),
        (["search=search_r1", "search.zzz=1"], "(there are cache, "),
        (["search=search_r1", "search.topk.x=1"], "search.topk has no settings below it"),
        (["search.topk=1"], "add search=..."),
        (["qqqqqq=1"], "qqqqqq: the configuration has no 'qqqqqq': correct the name"),
    ],
)
def test_the_nearest_name_is_said_in_one_line(overrides: list[str], said: str) -> None:
    with pytest.raises(HydraException) as raised:
        compose_run(overrides)
    line = reason(raised.value)
    assert said in line
    assert "\n" not in line
    assert "Config search path" not in line


@pytest.mark.parametrize("overrides", [["search.topk"], ["search=[search_r1,nope]"], ["~search.topk"]])
def test_other_refusals_are_hydra_s_own_in_one_line(overrides: list[str]) -> None:
    with pytest.raises(HydraException) as raised:
        compose_run(overrides)
    line = reason(raised.value)
    assert line.startswith(type(raised.value).__name__)
    assert "\n" not in line


def test_check_prints_it() -> None:
    script = Path(sys.executable).parent / "verl-llds"
    command = [script, "check", "search=search_r1", "search.max_failed_ratio=0.2"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    (line,) = (line for line in ended.stderr.splitlines() if line.startswith("verl-llds: "))
    assert "did you mean search.max_failure_ratio?" in line
