"""One real run: retriever process, verl's trainer, vLLM on the CPU, two steps, a checkpoint, one step resumed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import World

TIMEOUT_S = 420


def train(
    world: World, out: Path, url: str, environment: dict[str, str], *overrides: str
) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "verl.trainer.main_ppo",
        "algorithm=grpo_llds",
        "platform=cpu",
        "search=search_r1",
        f"search.url={url}",
        "search.max_turns=2",
        "search.max_action_tokens=40",
        "search.max_observation_tokens=120",
        f"data.train_files={world.train}",
        f"data.val_files={world.train}",
        "data.train_batch_size=4",
        "data.max_prompt_length=64",
        "data.max_response_length=320",
        f"actor_rollout_ref.model.path={world.model}",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.actor.use_kl_loss=false",
        "actor_rollout_ref.actor.optim.lr=1e-3",
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.rollout.max_num_seqs=32",
        "actor_rollout_ref.rollout.max_model_len=448",
        "trainer.logger=[console,file]",
        f"trainer.default_local_dir={out / 'checkpoints'}",
        f"trainer.rollout_data_dir={out / 'rollouts'}",
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
        "trainer.save_freq=1",
        f"hydra.run.dir={out / 'hydra'}",
        *overrides,
    ]
    environment = {**environment, "VERL_FILE_LOGGER_PATH": str(out / "metrics.jsonl")}
    return subprocess.run(
        command, env=environment, cwd=out, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def metrics(out: Path) -> dict[int, dict[str, Any]]:
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record["data"] for record in records}


@pytest.mark.e2e
def test_trains_saves_and_resumes(
    world: World, retriever_url: str, offline_environment: dict[str, str], tmp_path: Path
) -> None:
    # Every trajectory counts as correct, so that the probe set is complete after the first step.
    deep = ("diagnostics=deep", "diagnostics.probe_size=3", "diagnostics.correct_reward=0")
    first = train(world, tmp_path, retriever_url, offline_environment, "trainer.total_training_steps=2", *deep)
    assert first.returncode == 0, first.stdout[-4000:] + first.stderr[-4000:]
    steps = metrics(tmp_path)
    assert set(steps) == {1, 2}
    for values in steps.values():
        assert values["search/valid_searches"] > 0.5
        assert values["search/status/retrieval_failed"] == 0
        assert values["search/observation_tokens"] > 0
        assert values["training/rollout_probs_diff_mean"] < 0.05
        assert math.isfinite(values["actor/grad_norm"])
        assert values["actor/grad_norm"] > 0
        assert 0 <= values["actor/llds/open_token_frac"] <= 1
        assert not [name for name in values if "tally" in name]
        shares = [values.get(f"llds/trajectory_frac/{kind}", 0) for kind in ("correct", "zero", "incorrect")]
        assert sum(shares) == pytest.approx(1)
        assert values["llds/log_prob/zero/old"] == pytest.approx(values["actor/llds/log_prob/zero/old"], abs=1e-5)
        assert values["llds/probe/log_prob"] < 0
        assert values["llds/nonfinite_tokens"] == 0
        assert values["llds/phase"] == 0
    assert steps[1]["llds/probe/displacement"] == 0
    assert steps[2]["llds/probe/displacement"] != 0
    # Two updates a step: in the second the likelihood has moved, so the penalty is at work.
    assert any(values["actor/llds/penalty"] > 0 for values in steps.values())
    assert (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == "2"
    rollouts = [json.loads(line) for line in (tmp_path / "rollouts" / "1.jsonl").read_text().splitlines()]
    assert len(rollouts) == 16
    assert any("<information>Doc 1(Title: France)" in rollout["output"] for rollout in rollouts)

    second = train(world, tmp_path, retriever_url, offline_environment, "trainer.total_training_steps=3", *deep)
    assert second.returncode == 0, second.stdout[-4000:] + second.stderr[-4000:]
    assert set(metrics(tmp_path)) == {3}, "the second run must go on after the checkpoint, not start again"
    assert (tmp_path / "checkpoints" / "global_step_3" / "actor").is_dir()
    # The probe set is the one of the first run: measured anew, it would start at 0.
    assert metrics(tmp_path)[3]["llds/probe/displacement"] != 0


@pytest.mark.e2e
def test_a_missing_retriever_stops_the_run_before_training(
    world: World, offline_environment: dict[str, str], tmp_path: Path
) -> None:
    ended = train(
        world,
        tmp_path,
        "http://127.0.0.1:9/retrieve",
        offline_environment,
        "trainer.total_training_steps=2",
    )
    assert ended.returncode != 0
    output = ended.stdout + ended.stderr
    assert "verl_llds.errors.RetrievalError" in output
    assert "http://127.0.0.1:9/retrieve" in output
    assert "Training Progress" not in output


@pytest.mark.e2e
def test_partial_rollouts_carry_loss_answer_mask_and_diagnostics(
    world: World, retriever_url: str, offline_environment: dict[str, str], tmp_path: Path
) -> None:
    # The adaptive weight needs the answer mask in the worker and the valid searches from the driver.
    ended = train(
        world,
        tmp_path,
        retriever_url,
        offline_environment,
        "algorithm=grpo_llds_ma",
        "trainer.v1.trainer_mode=llds_colocate_async",
        "trainer.total_training_steps=2",
        "diagnostics=deep",
        "diagnostics.correct_reward=0",
        "diagnostics.probe_size=3",
    )
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    steps = metrics(tmp_path)
    assert set(steps) == {1, 2}
    for values in steps.values():
        assert values["search/answer_share"] > 0
        assert values["actor/llds/effective_coef"] == pytest.approx(0.2)
        assert values["llds/probe/log_prob"] < 0
        assert "llds/displacement/zero" in values or "llds/displacement/correct" in values
    assert any(values["actor/llds/penalty"] > 0 for values in steps.values())
