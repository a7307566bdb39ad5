"""From verl's columns to the file's, and back through the reader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from token_batch import batch, context

from verl_llds.errors import RunFolderError
from verl_llds.trajectories.reader import list_steps, read_info, read_step, step_path
from verl_llds.trajectories.rows import step_table
from verl_llds.trajectories.schema import SCHEMA
from verl_llds.trajectories.store import TrajectoryStore


def written(tmp_path: Path, *, is_measured: bool = True, **llds: Any) -> list[dict[str, Any]]:
    made = batch(is_measured=is_measured)
    TrajectoryStore(tmp_path, 1 << 20).write(made.step, step_table(made, context(**llds)))
    return read_step(tmp_path, made.step)


def test_a_trajectory_comes_back_as_it_was(tmp_path: Path) -> None:
    right, _ = written(tmp_path)
    assert list(right) == SCHEMA.names
    told = {name: right[name] for name in ("step", "key", "uid", "data_source", "question", "gold_answers", "answer")}
    assert told == {
        "step": 10,
        "key": "u_0_0",
        "uid": "u",
        "data_source": "nq",
        "question": "Which city?",
        "gold_answers": ["Oslo", "Christiania"],
        "answer": "Oslo",
    }
    assert (right["prompt"], right["num_prompt_tokens"]) == ("ab", 2)
    assert (right["score"], right["correct"], right["advantage"], right["preserved"]) == (1.0, True, 0.5, True)
    assert [(turn["kind"], turn["start"], turn["num_tokens"]) for turn in right["turns"]] == [
        ("call", 0, 2),
        ("answer", 5, 2),
    ]
    assert right["turns"][0]["documents"] == ["7", "9"]
    assert right["tokens"] == list("abcdefg")
    assert right["response_mask"] == [True, True, False, False, False, True, True]
    assert right["answer_mask"] == [False] * 6 + [True]
    assert right["old_log_probs"] == [-1, -1, None, None, None, -2, -2]
    assert right["new_log_probs"][:2] == pytest.approx([-0.9, -1.5])
    assert right["new_log_probs"][2:5] == [None] * 3


def test_gate_and_penalty_are_those_of_the_loss(tmp_path: Path) -> None:
    right, failed = written(tmp_path)
    assert right["gate"] == [True, True, False, False, False, False, False]
    assert right["penalty"] == pytest.approx([0, 0.5, 0, 0, 0, 0, 0])
    assert failed["gate"] == [False] * 3
    assert failed["penalty"] == [0] * 3
    token_gate, _ = written(tmp_path, gate="token")
    assert token_gate["penalty"] == pytest.approx([0, 0.5, 0, 0, 0, 0.1, 0], abs=1e-6)


def test_a_failed_trajectory_keeps_its_policy_tokens_and_has_no_advantage(tmp_path: Path) -> None:
    _, failed = written(tmp_path)
    assert failed["response_mask"] == [True, True, False]
    assert failed["advantage"] is None
    assert not failed["preserved"]
    assert (failed["status"], failed["error"], failed["answer"], failed["turns"]) == (
        "retrieval_failed",
        "down",
        None,
        [],
    )


def test_what_was_not_measured_is_missing(tmp_path: Path) -> None:
    for row in written(tmp_path, is_measured=False):
        assert row["new_log_probs"] is row["gate"] is row["penalty"] is None
        assert isinstance(row["preserved"], bool)


def test_a_plain_agent_loop_has_actions_by_its_mask_and_no_turns(tmp_path: Path) -> None:
    made = batch()
    columns = {name: value for name, value in made.columns.items() if name not in ("action_ids", "answer_mask")}
    plain = replace(made, columns={**columns, "data_source": None, "reward_model": None}, facts={})
    TrajectoryStore(tmp_path, 1 << 20).write(10, step_table(plain, context()))
    row, masked = read_step(tmp_path, 10)
    assert row["action_ids"] == [1, 1, 0, 0, 0, 2, 2]
    assert (row["status"], row["num_searches"], row["turns"], row["answer"]) == (None, None, [], None)
    assert (row["data_source"], row["gold_answers"]) == ("unknown", [])
    assert masked["response_mask"] == [False] * 3


def test_numbers_that_are_not_finite_come_through(tmp_path: Path) -> None:
    made = batch()
    columns = {**made.columns, "old_log_probs": [torch.full((7,), float("nan")), torch.full((3,), -torch.inf)]}
    TrajectoryStore(tmp_path, 1 << 20).write(10, step_table(replace(made, columns=columns), context()))
    row, infinite = read_step(tmp_path, 10)
    assert row["old_log_probs"][0] != row["old_log_probs"][0]
    assert row["old_log_probs"][2] is None
    assert infinite["old_log_probs"][0] == -float("inf")


def test_a_file_says_what_it_was_made_with(tmp_path: Path) -> None:
    written(tmp_path, coef=0.3)
    info = read_info(tmp_path, 10)
    assert (info["step"], info["num_trajectories"], info["is_applied"]) == (10, 8, True)
    assert info["llds"]["coef"] == 0.3
    assert info["correct_reward"] == 1.0
    assert list_steps(tmp_path) == [10]


def test_a_broken_or_missing_file_is_named(tmp_path: Path) -> None:
    step_path(tmp_path, 3).write_bytes(b"PAR1 not really")
    with pytest.raises(RunFolderError, match=r"step_00000003.parquet: .*remove the file if it is broken"):
        read_step(tmp_path, 3)
    with pytest.raises(RunFolderError, match="step_00000004"):
        read_step(tmp_path, 4)
    assert list_steps(tmp_path / "nowhere") == []


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verl_llds.trajectories.rows.FORMAT", 2)
    with pytest.raises(RunFolderError, match="format 2, this version reads 1"):
        written(tmp_path)
