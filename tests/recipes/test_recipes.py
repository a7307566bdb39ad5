"""Every recipe is a row of the table, composes to the paper's values, and says what is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from verl_llds.preflight.run import plan

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
EXPERIMENTS = {path.stem for path in (ROOT / "verl_llds" / "config" / "experiment").glob("*.yaml")}
SCRIPTS = sorted(ROOT.glob("recipes/*.sh"))
ROWS = sorted(path for path in SCRIPTS if path.stem.startswith(("qwen", "llama")))
"""The published rows; the others are laptop jobs and what they share."""

SHARED = {"common", "setup_cpu"}

LLDS = {"llds": "action", "ma": "action", "response": "response", "token": "token"}
"""Gate by the last word of a name."""


def run(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHON": sys.executable, **environment}
    return subprocess.run(
        ["bash", str(script), *arguments], capture_output=True, text=True, env=variables, timeout=300, check=False
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_parse_it(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_every_recipe_has_a_row_in_the_table_and_the_reverse() -> None:
    assert set(re.findall(r"^\| \[`(\w+)`\]\(\1\.sh\)", README, re.MULTILINE)) == {
        path.stem for path in SCRIPTS if path.stem not in SHARED
    }


def test_every_published_experiment_has_its_recipe() -> None:
    assert {path.stem for path in ROWS} == {name for name in EXPERIMENTS if not name.startswith("laptop")}
    assert len(ROWS) == 24


@pytest.mark.parametrize("script", ROWS, ids=lambda path: path.stem)
def test_a_recipe_is_thin(script: Path) -> None:
    lines = script.read_text(encoding="utf-8").splitlines()
    code = [line for line in lines if not line.startswith("#")]
    assert code == ['source "$(dirname "${BASH_SOURCE[0]}")/common.sh"', f'train {script.stem} "$@"']


@pytest.mark.parametrize("name", [path.stem for path in ROWS])
def test_a_dry_run_of_every_row_gives_the_paper_s_values(name: str) -> None:
    config, facts = plan([f"experiment={name}"])
    actor, words = config.actor_rollout_ref.actor, name.split("_")
    assert "10 updates" in facts
    assert config.trainer.experiment_name == name
    assert config.trainer.default_local_dir == f"checkpoints/verl-llds/{name}"
    assert (actor.optim.lr, actor.optim.lr_warmup_steps, config.trainer.total_training_steps) == (1e-6, 286, 1005)
    assert (actor.kl_loss_coef, actor.entropy_coeff, config.actor_rollout_ref.rollout.n) == (0.001, 0.001, 5)
    assert (actor.ppo_epochs, actor.shuffle, actor.grad_clip, actor.optim.weight_decay) == (1, False, 1.0, 0.01)
    assert (config.search.max_turns, config.search.topk) == (3, 3)
    loss = actor.policy_loss
    assert loss.get("base_loss", loss.loss_mode) == ("gspo" if "gspo" in words else "vanilla")
    assert (loss.loss_mode == "llds") == ("llds" in words)
    if "llds" in words:
        assert loss.llds.coef == (0.3 if name.startswith("qwen7b_instruct") else 0.2)
        assert loss.llds.gate == LLDS[words[-1]]
        assert loss.llds.answer_weight == ("paper" if words[-1] == "ma" else 1.0)
    assert ("hotpot" in words) == ("hotpotqa" in config.data.train_files)
    model = {"qwen3b": "Qwen/Qwen2.5-3B", "qwen7b": "Qwen/Qwen2.5-7B", "llama3b": "meta-llama/Llama-3.2-3B"}[words[0]]
    assert config.actor_rollout_ref.model.path == model + ("-Instruct" if "instruct" in words else "")
    (row,) = [line for line in README.splitlines() if line.startswith(f"| [`{name}`]")]
    experiment = (ROOT / "verl_llds/config/experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    (published,) = re.findall(r"average EM 0(\.\d{3})", experiment)
    (algorithm,) = re.findall(r"override /algorithm: (\w+)", experiment)
    assert f"| `{algorithm}` | {published}" in row


@pytest.mark.parametrize("hardware", ["1x80gb_lora", "4x80gb", "8x80gb", "2x8x80gb"])
def test_every_hardware_fits_verl_s_checks(hardware: str) -> None:
    config, facts = plan(["experiment=qwen7b_instruct_nq_hotpot_llds", f"hardware={hardware}"])
    assert "10 updates" in facts
    assert config.actor_rollout_ref.model.get("lora_rank", 0) == (64 if "lora" in hardware else 0)


def test_the_script_passes_on_what_it_is_given() -> None:
    ended = run(
        ROOT / "recipes" / "qwen3b_nq_llds_token.sh",
        "--dry-run",
        "hardware=4x80gb",
        RETRIEVER_URL="http://127.0.0.1:9/retrieve",
        DATA="here",
        MODEL="./there",
        NUM_GPUS="2",
    )
    assert ended.returncode == 0, ended.stderr
    for said in ("token gate", "here/train.parquet", "./there is not there", "1 x 2 (cuda)", "127.0.0.1:9"):
        assert said in ended.stdout


def test_a_bad_setting_and_a_missing_machine_start_nothing() -> None:
    recipe = ROOT / "recipes" / "qwen3b_nq_llds.sh"
    ended = run(recipe, "--dry-run", "algorithm.llds.coef=-1")
    assert ended.returncode == 1
    assert "llds.coef must be finite and not negative" in ended.stderr
    ended = run(recipe, "search.max_wait_s=1", RETRIEVER_URL="http://127.0.0.1:9/retrieve")
    assert ended.returncode == 1
    assert "not started" in ended.stderr
    ended = run(recipe, "--dry-run", PYTHON="/usr/bin/false")
    assert ended.returncode == 1
    assert "has no verl_llds" in ended.stderr
