"""A run of verl's trainer in a process of its own, on the small world."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conftest import World

TIMEOUT_S = 420


def train(
    world: World, out: Path, url: str, environment: dict[str, str], *overrides: str
) -> subprocess.CompletedProcess[str]:
    """Train and wait for the end."""
    process = start(world, out, url, environment, *overrides)
    try:
        process.wait(TIMEOUT_S)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, log(out), "")


def start(world: World, out: Path, url: str, environment: dict[str, str], *overrides: str) -> subprocess.Popen[str]:
    """Start training; what it says goes to a file, which no reader can block."""
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
    with (out / "log").open("w") as output:
        return subprocess.Popen(command, env=environment, cwd=out, text=True, stdout=output, stderr=subprocess.STDOUT)


def log(out: Path) -> str:
    """Return what the run said."""
    return (out / "log").read_text()


def metrics(out: Path) -> dict[int, dict[str, Any]]:
    """Return what was logged, by step."""
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record["data"] for record in records}


def rollouts(out: Path, step: int) -> list[dict[str, Any]]:
    """Return the trajectories that verl dumped for a step."""
    return [json.loads(line) for line in (out / "rollouts" / f"{step}.jsonl").read_text().splitlines()]
