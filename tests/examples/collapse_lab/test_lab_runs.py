import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from lab import grid, reporting
from lab.arms import PRESETS, RunSettings, arms
from lab.cold_start import ColdStartSettings, cold_start
from lab.objective import ObjectiveSettings
from lab.runs import Run, is_finished
from lab.summary import Outcome, find_runs, interval, outcome, paired, run_table, table
from lab.world import WorldSettings

from verl_llds.errors import ConfigError
from verl_llds.settings import LLDSConfig

FRESH = RunSettings(
    cold_start=ColdStartSettings(world=WorldSettings(num_entities=50), steps=1, rows=2),
    objective=ObjectiveSettings(llds={"coef": 0.2}),
    steps=2,
    num_prompts=2,
    group_size=2,
    updates=2,
)


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_two_steps_from_end_to_end_and_again(tmp_path: Path) -> None:
    runs = [Run(preset="protocol", arm="fresh", seed=1, settings=FRESH)]
    grid.run_grid(runs, tmp_path / "runs", tmp_path)
    path = tmp_path / "runs" / "protocol" / "fresh-seed1.jsonl"
    header, *rows = _rows(path)
    assert header["header"]["settings"]["steps"] == 2
    assert [row["step"] for row in rows] == [1, 2]
    named = {"critic/score/mean", "actor/entropy", "actor/grad_norm", "search/answer_share", "llds/probe/log_prob"}
    named |= {"actor/llds/penalty", "llds/log_prob/zero/new", "llds/log_ratio/p99", "llds/phase"}
    assert named <= rows[1]["data"].keys()
    assert all(math.isfinite(value) for row in rows for value in row["data"].values())

    written = path.read_text()
    path.write_text(written + "{}\n")
    grid.run_grid(runs, tmp_path / "runs", tmp_path)
    assert path.read_text() == written + "{}\n", "a finished run is not made again"
    path.unlink()
    path.with_suffix(".jsonl.part").write_text(written[:100])
    grid.run_grid(runs, tmp_path / "runs", tmp_path)
    assert path.read_text() == written, "an interrupted run is made again, and comes out the same"


def test_a_finished_run_with_other_settings_is_not_taken_for_this_one(tmp_path: Path) -> None:
    settled = Run(preset="protocol", arm="fresh", seed=1, settings=FRESH)
    path = settled.path(tmp_path)
    path.parent.mkdir()
    path.write_text(json.dumps({"header": settled.header()}) + "\n")
    assert is_finished(settled, tmp_path)
    with pytest.raises(ConfigError, match="other settings"):
        is_finished(replace(settled, settings=replace(FRESH, learning_rate=1.0)), tmp_path)


def test_cold_start_is_cached_by_its_settings(tmp_path: Path) -> None:
    first = cold_start(FRESH.cold_start, tmp_path).state_dict()
    again = cold_start(FRESH.cold_start, tmp_path).state_dict()
    assert all(again[name].equal(weights) for name, weights in first.items())
    cold_start(replace(FRESH.cold_start, seed=1), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_arm_has_settings_of_its_own(preset: str) -> None:
    table = arms(preset)
    assert len({repr(settings) for settings in table.values()}) == len(table)
    assert table["grpo"] == PRESETS[preset]
    for settings in table.values():
        LLDSConfig(**settings.objective.llds)


def test_unknown_arm_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert grid.main(["--arms", "grpo", "gspo"]) == 2
    assert "no arm gspo" in capsys.readouterr().err


def _write_run(path: Path, arm: str, seed: int, rewards: list[float], probe: float = -0.5) -> None:
    lines = [json.dumps({"header": {"arm": arm, "seed": seed}})]
    for step, reward in enumerate(rewards, start=1):
        data = {"critic/score/mean": reward, "search/answer_share": 0.9, "actor/entropy": 0.2}
        lines.append(json.dumps({"step": step, "data": {**data, "llds/probe/log_prob": probe}}))
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def test_outcome_of_a_run_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "grpo-seed1.jsonl"
    # The mean of steps 11 to 15 is still 0.12, that of 12 to 16 is 0.02.
    _write_run(path, "grpo", 1, [0.4] * 10 + [0.5, 0.1] + [0.0] * 8)
    found = outcome(path)
    assert found.collapse_step == 12
    assert found.reward == pytest.approx(0.06)
    assert found.best_reward == pytest.approx(0.41)
    assert (found.answers, found.entropy, found.probe) == pytest.approx((0.9, 0.2, -0.5))
    _write_run(path, "grpo", 1, [0.4] * 20)
    assert outcome(path).collapse_step == math.inf


def test_differences_are_of_equal_seeds() -> None:
    def made(reward: float) -> Outcome:
        return Outcome(reward, 0.0, 0.0, 0.0, 0.0, math.inf, {})

    baseline = {1: made(0.1), 2: made(0.2), 4: made(0.9)}
    arm = {2: made(0.5), 1: made(0.3), 3: made(0.7)}
    assert paired(arm, baseline, "reward") == pytest.approx([0.2, 0.3])
    row = table({"grpo": baseline, "llds": arm}).splitlines()[-1]
    assert row.startswith("| llds | 3 | 0.50 ± 0.20 |")
    assert "0/3 | +0.25 [-0.39, +0.89] |" in row
    assert run_table({"llds": arm}).splitlines()[2].startswith("| llds | 1 | 0.30 | 0.00 |")


def test_interval_is_that_of_student() -> None:
    # Mean 0.2, deviation sqrt(0.025), 4 degrees of freedom.
    reach = 2.776 * math.sqrt(0.025 / 5)
    assert interval([0.0, 0.1, 0.2, 0.3, 0.4]) == pytest.approx((0.2 - reach, 0.2 + reach))
    assert interval([1.0, 1.0]) == (1.0, 1.0)


def test_report_writes_table_and_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write_run(tmp_path / "grpo-seed1.jsonl", "grpo", 1, [0.4] * 12)
    _write_run(tmp_path / "llds_action-seed1.jsonl", "llds_action", 1, [0.6] * 12)
    assert list(find_runs(tmp_path)) == ["grpo", "llds_action"]
    assert reporting.main(["--runs", str(tmp_path)]) == 0
    assert "| llds_action | 1 | 0.60 |" in capsys.readouterr().out
    assert (tmp_path / "collapse.png").read_bytes().startswith(b"\x89PNG")
    assert reporting.main(["--runs", str(tmp_path / "nothing")]) == 2
    assert "no finished runs" in capsys.readouterr().err
