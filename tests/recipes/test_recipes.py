"""Every recipe is a row of the table, composes to the paper's values, and says what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from verl_llds import cli
from verl_llds.preflight.run import plan

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
EXPERIMENTS = {path.stem for path in (ROOT / "verl_llds" / "config" / "experiment").glob("*.yaml")}
SCRIPTS = sorted(ROOT.glob("recipes/*.sh"))
ROWS = sorted(path for path in SCRIPTS if path.stem.startswith(("qwen", "llama")))
"""The published rows; the others are laptop jobs and what they share."""

SHARED = {"common", "setup_cpu"}

LAPTOP = sorted(path for path in SCRIPTS if path.stem not in SHARED and path not in ROWS)

LLDS = {"llds": "action", "ma": "action", "response": "response", "token": "token"}
"""Gate by the last word of a name."""


NOTE_DOWN = """#!/usr/bin/env bash
[ "$1" != -c ] || exit "${INSTALLED:-0}"
printf '%s\\n' "$@" --- >>"$CALLS"
exit "${STATUS:-0}"
"""
"""A python that has everything and notes down what it is to do."""


@dataclass(frozen=True)
class Checkout:
    """The recipes by themselves, with a python that does nothing."""

    root: Path

    def run(self, name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {"PYTHON": str(self.root / "python"), "CALLS": str(self.root / "calls"), **environment}
        return run(self.root / "recipes" / name, *arguments, **variables)

    @property
    def calls(self) -> list[list[str]]:
        """What python was called with, in order."""
        noted = self.root / "calls"
        return [call.split("\n") for call in noted.read_text().split("\n---\n")[:-1]] if noted.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    (tmp_path / "recipes" / "setup_cpu.sh").write_text('echo setup_cpu >>"$CALLS"; echo --- >>"$CALLS"')
    (tmp_path / "python").write_text(NOTE_DOWN)
    (tmp_path / "python").chmod(0o755)
    return Checkout(tmp_path)


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
def test_a_dry_run_of_every_row_gives_the_paper_s_values(name: str, checkout: Checkout) -> None:
    assert checkout.run(f"{name}.sh", "trainer.save_freq=50", "--dry-run").returncode == 0
    (call,) = checkout.calls
    assert call[:4] == ["-m", "verl_llds.preflight", "--dry-run", "--"]
    config, facts = plan(call[4:])
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
        "hardware=4x80gb",
        "--dry-run",
        RETRIEVER_URL="http://127.0.0.1:9/retrieve",
        DATA="here",
        MODEL="./there",
        NUM_GPUS="2",
    )
    assert ended.returncode == 0, ended.stderr
    for said in ("token gate", "here/train.parquet", "./there is not there", "1 x 2 (cuda)", "127.0.0.1:9"):
        assert said in ended.stdout


@pytest.mark.parametrize("script", LAPTOP, ids=lambda path: path.stem)
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_a_dry_run_of_every_laptop_job_composes_and_makes_nothing(
    script: Path, platform: str, checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(checkout.root.rglob("*"))
    ended = checkout.run(script.name, f"platform={platform}", "--dry-run", "algorithm.llds.coef=0.5", OUT="made")
    assert ended.returncode == 0, ended.stderr
    assert "dry run: made/policy is not there yet" in ended.stdout
    assert sorted(checkout.root.rglob("*")) == sorted([*before, checkout.root / "calls"])
    arms = ["grpo", "grpo_llds"] if script.stem == "laptop_collapse" else ["grpo_llds"]
    assert len(checkout.calls) == len(arms)
    for arm, call in zip(arms, checkout.calls, strict=True):
        assert call[:4] == ["-m", "verl_llds.cli", "check", f"experiment={script.stem}"]
        assert cli.main(call[2:]) == 0
        said = capsys.readouterr().out
        assert "model      made/policy" in said
        assert ("0.5 x penalty" in said) == (arm == "grpo_llds")
        assert f"({'cuda' if platform == 'gpu' else 'cpu'})" in said


@pytest.mark.parametrize("script", LAPTOP, ids=lambda path: path.stem)
def test_a_laptop_job_s_dry_run_without_an_environment_says_so(script: Path, checkout: Checkout) -> None:
    before = sorted(checkout.root.rglob("*"))
    ended = checkout.run(script.name, "--dry-run", INSTALLED="1")
    assert ended.returncode == 1
    assert "has no verl_llds or lacks its packages" in ended.stderr
    assert sorted(checkout.root.rglob("*")) == before


@pytest.mark.parametrize("script", LAPTOP, ids=lambda path: path.stem)
def test_a_laptop_job_is_set_up_and_given_its_overrides(script: Path, checkout: Checkout) -> None:
    (checkout.root / ".venv" / "bin").mkdir(parents=True)
    (checkout.root / "python").rename(checkout.root / ".venv" / "bin" / "python")
    assert checkout.run(script.name, "a=1", "b=two words", OUT="made").returncode == 0
    setup, (example, *arguments) = checkout.calls
    assert setup == ["setup_cpu"]
    assert (ROOT / example).is_file()
    assert arguments == ["--out", "made", "--", "a=1", "b=two words"]


def test_a_row_is_looked_at_and_then_trained(checkout: Checkout) -> None:
    assert checkout.run("qwen3b_nq_llds.sh", "a=1", "b=two words").returncode == 0
    overrides = ["experiment=qwen3b_nq_llds", "a=1", "b=two words"]
    assert checkout.calls == [
        ["-m", "verl_llds.preflight", "--", *overrides],
        ["-m", "verl.trainer.main_ppo", *overrides],
    ]
    assert checkout.run("qwen3b_nq_llds.sh", STATUS="1").returncode == 1
    assert [call[1] for call in checkout.calls[2:]] == ["verl_llds.preflight"]


def test_a_missing_machine_starts_nothing() -> None:
    recipe = ROOT / "recipes" / "qwen3b_nq_llds.sh"
    ended = run(recipe, "search.max_wait_s=1", RETRIEVER_URL="http://127.0.0.1:9/retrieve")
    assert ended.returncode == 1
    assert "not started" in ended.stderr
    ended = run(recipe, "--dry-run", PYTHON="/usr/bin/false")
    assert ended.returncode == 1
    assert "has no verl_llds" in ended.stderr
