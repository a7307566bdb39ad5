"""Whose checkpoints a folder holds, so that no run goes on from another experiment's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_llds.data.files import write_json
from verl_llds.doctor.findings import Finding, Status

FILE = "experiment.json"
"""Beside verl's ``latest_checkpointed_iteration.txt``."""

_LATEST = "latest_checkpointed_iteration.txt"

_ACTOR = "actor_rollout_ref.actor"

_KEYS = (
    "trainer.experiment_name",
    "actor_rollout_ref.model.path",
    "actor_rollout_ref.model.lora_rank",
    "data.train_files",
    "data.train_batch_size",
    "algorithm.adv_estimator",
    "algorithm.use_kl_in_reward",
    f"{_ACTOR}.policy_loss",
    f"{_ACTOR}.loss_agg_mode",
    f"{_ACTOR}.clip_ratio_low",
    f"{_ACTOR}.clip_ratio_high",
    f"{_ACTOR}.clip_ratio_c",
    f"{_ACTOR}.entropy_coeff",
    f"{_ACTOR}.use_kl_loss",
    f"{_ACTOR}.kl_loss_coef",
    f"{_ACTOR}.ppo_mini_batch_size",
    f"{_ACTOR}.ppo_epochs",
    f"{_ACTOR}.optim.lr",
    f"{_ACTOR}.optim.lr_warmup_steps",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.temperature",
    "actor_rollout_ref.rollout.top_p",
    "search.protocol",
    "search.topk",
    "search.max_turns",
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


def check_folder(config: DictConfig) -> Iterator[Finding]:
    """Compare the run with the one that the checkpoint folder was made for."""
    folder = Path(config.trainer.default_local_dir)
    file = folder / FILE
    latest = folder / _LATEST
    step = latest.read_text(encoding="utf-8").strip() if latest.is_file() else ""
    if not file.is_file():
        if step:
            text = f"{folder} holds step {step} of a run that did not leave its settings: see that it is this one"
            yield Finding(Status.WARN, "checkpoints", text)
        else:
            yield Finding(Status.OK, "checkpoints", f"a new folder, {folder}")
        return
    try:
        made_for = json.loads(file.read_text(encoding="utf-8"))
        differences = _differences(made_for, run_identity(config))
    except (ValueError, AttributeError) as error:
        yield Finding(
            Status.FAIL, "checkpoints", f"{file} cannot be read ({error}): remove it to go on with its folder"
        )
        return
    if differences:
        text = (
            f"{folder} belongs to another experiment ({'; '.join(differences)}): set trainer.experiment_name or "
            f"trainer.default_local_dir to a folder of its own, or remove {file} to go on with it all the same"
        )
        yield Finding(Status.FAIL, "checkpoints", text)
    elif step and config.trainer.resume_mode != "disable":
        yield Finding(Status.OK, "checkpoints", f"goes on after step {step} in {folder}")
    else:
        yield Finding(Status.OK, "checkpoints", f"none yet in {folder}" if not step else f"{folder}, from the start")


def _differences(made_for: dict[str, Any], this: dict[str, Any]) -> list[str]:
    """Return the first differences, three at most."""
    keys = sorted({*made_for, *this}, key=lambda key: (key not in this, list(this).index(key) if key in this else 0))
    found = [
        f"{key} was {made_for.get(key)!r}, is now {this.get(key)!r}"
        for key in keys
        if made_for.get(key) != this.get(key)
    ]
    return found if len(found) <= 3 else [*found[:3], f"and {len(found) - 3} more"]


def claim_folder(config: DictConfig) -> None:
    """Leave the run's settings in its checkpoint folder, whole or not at all."""
    folder = Path(config.trainer.default_local_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FILE, run_identity(config))
