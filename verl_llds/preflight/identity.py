"""What makes a run this experiment and no other: its settings and its questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_llds.data.files import sha256_file

_ACTOR = "actor_rollout_ref.actor"

_KEYS = (
    "trainer.experiment_name",
    "actor_rollout_ref.model.path",
    "actor_rollout_ref.model.lora_rank",
    "actor_rollout_ref.model.lora_alpha",
    "data.train_files",
    "data.train_batch_size",
    "data.max_response_length",
    "algorithm.adv_estimator",
    "algorithm.norm_adv_by_std_in_grpo",
    "algorithm.use_kl_in_reward",
    f"{_ACTOR}.policy_loss",
    f"{_ACTOR}.loss_agg_mode",
    f"{_ACTOR}.clip_ratio_low",
    f"{_ACTOR}.clip_ratio_high",
    f"{_ACTOR}.clip_ratio_c",
    f"{_ACTOR}.entropy_coeff",
    f"{_ACTOR}.use_kl_loss",
    f"{_ACTOR}.kl_loss_coef",
    f"{_ACTOR}.kl_loss_type",
    f"{_ACTOR}.ppo_mini_batch_size",
    f"{_ACTOR}.ppo_epochs",
    f"{_ACTOR}.shuffle",
    f"{_ACTOR}.grad_clip",
    f"{_ACTOR}.optim.lr",
    f"{_ACTOR}.optim.lr_warmup_steps",
    f"{_ACTOR}.optim.weight_decay",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.temperature",
    "actor_rollout_ref.rollout.top_p",
    "search.protocol",
    "search.topk",
    "search.max_turns",
    "search.max_action_tokens",
    "search.max_observation_tokens",
    "search.reward",
    # verl reads a checkpoint only with as many processes as wrote it.
    "trainer.nnodes",
    "trainer.n_gpus_per_node",
)
"""What makes a run another experiment; where it runs and what it logs does not."""


def run_identity(config: DictConfig) -> dict[str, Any]:
    """Return the settings that make a run this experiment, flat, by their dotted names."""
    found: dict[str, Any] = {}
    for key in _KEYS:
        _flatten(key, OmegaConf.select(config, key), found)
    return found


def _flatten(key: str, value: Any, into: dict[str, Any]) -> None:
    if OmegaConf.is_dict(value):
        for name in value:
            _flatten(f"{key}.{name}", value[name], into)
    else:
        into[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_list(value) else value


def name_questions(config: DictConfig, key: str) -> list[str]:
    """Return the files of questions that ``data.train_files`` or ``data.val_files`` names, as they stand there."""
    value = OmegaConf.select(config, f"data.{key}")
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(name) for name in value]


def hash_questions(config: DictConfig) -> dict[str, str]:
    """Return the SHA-256 of every file of questions by its name; empty for one that is not on this machine."""
    names = [name for key in ("train_files", "val_files") for name in name_questions(config, key)]
    paths = {name: Path(name).expanduser() for name in names}
    return {name: sha256_file(path) if path.is_file() else "" for name, path in paths.items()}


def find_differences(made_for: dict[str, Any], this: dict[str, Any]) -> list[str]:
    """Return in words the first differences between two runs' settings, three at most."""
    keys = [*this, *sorted(made_for.keys() - this.keys())]
    found = [
        f"{key} was {made_for.get(key)!r}, is now {this.get(key)!r}"
        for key in keys
        if made_for.get(key) != this.get(key)
    ]
    return found if len(found) <= 3 else [*found[:3], f"and {len(found) - 3} more"]
