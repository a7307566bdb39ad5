"""The config groups on verl's own command: there when asked for, invisible otherwise."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import verl  # noqa: F401
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig

import verl_llds.config
from verl_llds.hydra_ext import is_verl_config_dir

YAML_FILES = sorted(Path(verl_llds.config.__file__).parent.rglob("*.yaml"))


def composed(*overrides: str, name: str = "ppo_trainer") -> DictConfig:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(name, overrides=list(overrides))


def printed_config(directory: Path, *arguments: str, **environment: str) -> bytes:
    process = subprocess.run(
        [sys.executable, "-m", "verl.trainer.main_ppo", "--cfg", "job", *arguments],
        env={**os.environ, **environment},
        cwd=directory,
        capture_output=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr.decode()
    return process.stdout


@pytest.mark.parametrize("arguments", [(), ("--config-name", "ppo_megatron_trainer")])
def test_a_command_line_without_our_groups_composes_what_stock_verl_composes(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    ours = printed_config(tmp_path, *arguments)
    assert len(ours) > 10_000
    assert ours == printed_config(tmp_path, *arguments, VERL_USE_EXTERNAL_PLUGINS="none")


def test_the_command_takes_our_groups(tmp_path: Path) -> None:
    text = printed_config(tmp_path, "algorithm=grpo_llds", "search=search_r1", "algorithm.llds.coef=0.05")
    assert b"coef: 0.05" in text
    assert b"loss_mode: llds" in text


def test_grpo_is_the_papers_baseline() -> None:
    config = composed("algorithm=grpo")
    actor = config.actor_rollout_ref.actor
    assert config.algorithm.adv_estimator == "grpo"
    assert config.trainer.v1.trainer_mode == "llds_sync"
    assert (actor.policy_loss.loss_mode, actor.loss_agg_mode) == ("vanilla", "token-mean")
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == (0.2, 0.2, 1e6)
    assert (actor.use_kl_loss, actor.kl_loss_coef, actor.entropy_coeff) == (True, 0.001, 0.001)
    assert "llds" not in config.algorithm


@pytest.mark.parametrize(
    ("choice", "base_loss", "answer_weight", "loss_agg_mode"),
    [
        ("grpo_llds", "vanilla", 1.0, "token-mean"),
        ("grpo_llds_ma", "vanilla", "paper", "token-mean"),
        ("gspo_llds", "gspo", 1.0, "seq-mean-token-mean"),
    ],
)
def test_llds_algorithms(choice: str, base_loss: str, answer_weight: float | str, loss_agg_mode: str) -> None:
    config = composed(f"algorithm={choice}")
    actor = config.actor_rollout_ref.actor
    assert config.algorithm.adv_estimator == "grpo"
    assert actor.policy_loss.loss_mode == "llds"
    assert actor.policy_loss.base_loss == base_loss
    assert actor.loss_agg_mode == loss_agg_mode
    assert actor.policy_loss.llds == config.algorithm.llds
    assert (config.algorithm.llds.coef, config.algorithm.llds.gate) == (0.2, "action")
    assert config.algorithm.llds.answer_weight == answer_weight
    assert config.trainer.v1.trainer_mode == "llds_sync"


def test_platform_cpu() -> None:
    config = composed("platform=cpu")
    assert config.trainer.device == "cpu"
    assert config.actor_rollout_ref.rollout.tensor_model_parallel_size == 1
    assert config.actor_rollout_ref.actor.strategy == "fsdp2"
    ray_init = config.ray_kwargs.ray_init
    assert ray_init.num_gpus == 1
    assert ray_init.runtime_env.env_vars.VERL_PLATFORM == "cpu"


def test_search_r1() -> None:
    config = composed("search=search_r1")
    assert config.search.url == "http://127.0.0.1:8000/retrieve"
    assert config.actor_rollout_ref.rollout.agent.default_agent_loop == "search"


def test_the_megatron_primary_takes_our_groups_too() -> None:
    config = composed("algorithm=grpo_llds", name="ppo_megatron_trainer")
    assert config.actor_rollout_ref.actor.policy_loss.loss_mode == "llds"


def test_groups_combine_and_values_on_the_command_line_win() -> None:
    config = composed(
        *("actor_rollout_ref.rollout.n=3", "algorithm=grpo_llds_ma", "search=search_r1", "platform=cpu"),
        *("algorithm.llds.coef=0.3", "search.topk=5", "trainer.logger=[console,file]"),
    )
    assert config.algorithm.llds.coef == 0.3
    assert config.actor_rollout_ref.actor.policy_loss.llds.coef == 0.3
    assert config.algorithm.llds.answer_weight == "paper"
    assert config.search.topk == 5
    assert config.actor_rollout_ref.rollout.n == 3
    assert config.trainer.logger == ["console", "file"]


def test_an_unknown_choice_names_the_choices() -> None:
    with pytest.raises(HydraException) as caught:
        composed("algorithm=typo")
    for choice in ("algorithm/typo", "grpo", "grpo_guarded", "grpo_llds", "grpo_llds_ma", "gspo_llds"):
        assert choice in str(caught.value)


@pytest.mark.parametrize(
    ("path", "is_verls"),
    [
        ("pkg://verl.trainer.config", True),
        ("pkg://verl/trainer/config", True),
        ("/env/site-packages/verl/trainer/config", True),
        ("file:///env/site-packages/verl/trainer/config/", True),
        ("pkg://verl_speco.config", False),
        ("/home/user/my/config", False),
    ],
)
def test_only_verls_config_directory_is_extended(path: str, is_verls: bool) -> None:
    assert is_verl_config_dir(path) is is_verls


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_field_has_a_comment_above(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    bare = [
        line.strip()
        for above, line in itertools.pairwise(lines)
        if re.match(r"\s*[\w.]+:\s*\S", line) and not above.lstrip().startswith("#")
    ]
    assert bare == []
    assert not [line for line in lines if re.search(r"\S\s+#", line) and not line.lstrip().startswith("#")]
