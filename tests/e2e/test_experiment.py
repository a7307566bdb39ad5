"""A published row's experiment file, as it is, through verl's trainer on the CPU."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from training_run import TIMEOUT_S, log

from verl_llds.compose import compose_run
from verl_llds.data.files import sha256_file
from verl_llds.preflight.run_folder import check_folder
from verl_llds.report.run_folder import read_run

if TYPE_CHECKING:
    from conftest import World

EXPERIMENT = "qwen3b_nq_hotpot_llds_ma"

SIZES = (
    # The world has eight questions.
    "data.train_batch_size=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    # The policy has 1,024 positions.
    "data.max_response_length=480",
    "actor_rollout_ref.rollout.max_model_len=992",
    # Of 1,005 steps.
    "trainer.total_training_steps=2",
)


@pytest.mark.e2e
def test_an_experiment_file_trains_on_the_cpu(
    world: World, retriever_url: str, offline_environment: dict[str, str], tmp_path: Path
) -> None:
    overrides = [
        f"experiment={EXPERIMENT}",
        "platform=cpu",
        f"actor_rollout_ref.model.path={world.model}",
        f"data.train_files={world.train}",
        f"data.val_files={world.train}",
        f"search.url={retriever_url}",
        f"trainer.default_local_dir={tmp_path / 'checkpoints'}",
        # platform=cpu logs to the console alone, and this test reads what was logged.
        "trainer.logger=[console,file]",
        *SIZES,
    ]
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *overrides]
    with (tmp_path / "log").open("w") as output:
        ended = subprocess.run(
            command, env=offline_environment, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT, timeout=TIMEOUT_S
        )
    assert ended.returncode == 0, log(tmp_path)[-4000:]
    # Metrics, Hydra's record and checkpoints are one folder.
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "log"}
    steps = read_run(tmp_path / "checkpoints").metrics
    assert {1, 2} <= set(steps)
    for values in (steps[1], steps[2]):
        assert values["search/valid_searches"] > 0.5
        assert math.isfinite(values["actor/grad_norm"])
        # The reference model is there, and the experiment's own values are at work.
        assert "actor/kl_loss" in values
        assert values["actor/llds/effective_coef"] == pytest.approx(0.2)
    # Two steps into a warm-up of 286.
    assert steps[2]["actor/lr"] == pytest.approx(2 * 1e-6 / 286, rel=1e-6, abs=0)
    assert (tmp_path / "checkpoints" / "global_step_2" / "actor" / "huggingface" / "config.json").is_file()
    check_card(world, tmp_path / "checkpoints", offline_environment)
    # verl leaves the folder's mark alone: this experiment goes on in it, another one is kept out.
    (finding,) = check_folder(compose_run(overrides))
    assert "goes on after step 2" in finding.text
    (finding,) = check_folder(compose_run([*overrides, "algorithm=grpo"]))
    assert "belongs to another experiment" in finding.text


def check_card(world: World, checkpoints: Path, environment: dict[str, str]) -> None:
    """Export the last checkpoint from another folder, with nothing but its path."""
    out = checkpoints.parent / "exported"
    command = [Path(sys.executable).parent / "verl-llds", "export", checkpoints, "--out", out]
    ended = subprocess.run(
        command, env=environment, cwd=world.root, capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert "the card lacks" not in ended.stderr
    card = (out / "README.md").read_text()
    assert "| `actor_rollout_ref.actor.policy_loss.loss_mode` | llds |" in card
    assert f"| `train.parquet` | `{sha256_file(world.train)}` |" in card
    assert "![Metrics by training step](curves.png)" in card
