"""How a run was trained, read off the configuration Hydra keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from verl_llds.data.files import sha256_file
from verl_llds.errors import ExportError

_HYDRA = Path(".hydra") / "config.yaml"

_SHOWN = (
    "actor_rollout_ref.model.path",
    "algorithm.adv_estimator",
    "actor_rollout_ref.actor.policy_loss.loss_mode",
    "actor_rollout_ref.actor.policy_loss.base_loss",
    "algorithm.llds",
    "actor_rollout_ref.actor.optim.lr",
    "actor_rollout_ref.actor.clip_ratio",
    "actor_rollout_ref.actor.use_kl_loss",
    "actor_rollout_ref.actor.kl_loss_coef",
    "actor_rollout_ref.actor.entropy_coeff",
    "data.train_batch_size",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.temperature",
    "actor_rollout_ref.rollout.top_p",
    "data.max_prompt_length",
    "data.max_response_length",
    "search.protocol",
    "search.topk",
    "search.max_turns",
    "search.max_action_tokens",
    "search.max_observation_tokens",
    "search.reward.metric",
    "trainer.total_training_steps",
)
"""What a card names; the whole configuration lies beside it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A run's configuration."""

    text: str
    """All of it, as YAML."""
    shown: dict[str, str]
    """The settings that a card names."""
    data: dict[str, str]
    """By file of questions, its SHA-256; empty where the file is not here any more."""


def read_recipe(run: Path) -> Recipe:
    """Read the configuration of a run.

    Args:
        run: a folder that holds one ``.hydra/config.yaml``, at any depth of three.

    Raises:
        ExportError: if there is none or more than one, or it is not a run's.
    """
    found = [path for pattern in ("", "*/", "*/*/") for path in sorted(run.glob(f"{pattern}{_HYDRA}"))]
    if len(found) != 1:
        listed = f": {', '.join(map(str, found))}" if found else ""
        raise ExportError(
            f"{run} holds {len(found)} files {_HYDRA}{listed}; --run takes the folder of one run, which hydra.run.dir "
            "is in"
        )
    try:
        config = OmegaConf.load(found[0])
        assert isinstance(config, DictConfig), "Hydra keeps a mapping"
        values = {name: OmegaConf.select(config, name) for name in _SHOWN}
        files = [str(path) for key in ("train_files", "val_files") for path in _files(config, f"data.{key}")]
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise ExportError(f"{found[0]} is no run's configuration: {error}") from error
    return Recipe(
        text=OmegaConf.to_yaml(config),
        shown={name: _plain(value) for name, value in values.items() if value is not None},
        data={name: sha256_file(Path(name)) if Path(name).is_file() else "" for name in dict.fromkeys(files)},
    )


def _files(config: DictConfig, name: str) -> Iterator[Any]:
    value = OmegaConf.select(config, name)
    if value is not None:
        yield from [value] if isinstance(value, str) else value


def _plain(value: object) -> str:
    if OmegaConf.is_config(value):
        pairs = OmegaConf.to_container(value, resolve=True)
        return (
            ", ".join(f"{name!s}={one}" for name, one in pairs.items() if name != "_target_")
            if isinstance(pairs, dict)
            else str(pairs)
        )
    return str(value)
