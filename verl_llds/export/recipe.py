"""How a run was trained, read off the configuration Hydra keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from verl_llds.errors import ExportError
from verl_llds.preflight.identity import name_questions

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
    """By file of questions, its SHA-256 when the run was started; empty where nobody wrote it down."""


def find_run(checkpoints: Path) -> Path | None:
    """Return the folder with the record of the run that saved into a folder, or None.

    Args:
        checkpoints: ``trainer.default_local_dir``. The recipes keep all of a run there; the laptop's jobs one level up.
    """
    if _configurations(checkpoints):
        return checkpoints
    above = _configurations(checkpoints.parent)
    saves_here = [Path(_saves_to(_load(path))).name == checkpoints.name for path in above]
    return checkpoints.parent if above and all(saves_here) else None


def read_recipe(run: Path, hashes: Mapping[str, str]) -> Recipe:
    """Read the configuration with which a run was last started.

    Args:
        run: a folder that holds ``.hydra/config.yaml`` of one run, at any depth of three; one for each start.
        hashes: SHA-256 of files of questions, by the names they have in the configuration.

    Raises:
        ExportError: if there is none, they are of several runs, or it is not a run's.
    """
    found = _configurations(run)
    if not found:
        raise ExportError(f"{run} holds no {_HYDRA}: --run takes the folder of one run, which hydra.run.dir is in")
    by_folder = {_saves_to(_load(path)): path for path in found}
    if len(by_folder) > 1:
        listed = ", ".join(map(str, by_folder.values()))
        raise ExportError(f"{run} holds the configurations of several runs, {listed}: --run takes the folder of one")
    config = _load(found[-1])
    try:
        values = {name: OmegaConf.select(config, name) for name in _SHOWN}
        shown = {name: _plain(value) for name, value in values.items() if value is not None}
        files = [name for key in ("train_files", "val_files") for name in name_questions(config, key)]
    except OmegaConfBaseException as error:
        raise _no_configuration(found[-1], error) from error
    return Recipe(text=OmegaConf.to_yaml(config), shown=shown, data={name: hashes.get(name, "") for name in files})


def _configurations(run: Path) -> list[Path]:
    """Return what Hydra has left of each start of a run, the newest last."""
    found = {path for pattern in ("", "*/", "*/*/") for path in run.glob(f"{pattern}{_HYDRA}")}
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path))


def _load(path: Path) -> DictConfig:
    try:
        config = OmegaConf.load(path)
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise _no_configuration(path, error) from error
    assert isinstance(config, DictConfig), "Hydra keeps a mapping"
    return config


def _saves_to(config: DictConfig) -> str:
    try:
        return str(OmegaConf.select(config, "trainer.default_local_dir"))
    except OmegaConfBaseException:
        # With a resolver that only Hydra knows, such as ${now:}. As it is written, it still tells runs apart.
        return str(OmegaConf.to_container(config.trainer, resolve=False))


def _no_configuration(path: Path, error: Exception) -> ExportError:
    return ExportError(f"{path} is no run's configuration: {error}")


def _plain(value: object) -> str:
    if OmegaConf.is_config(value):
        pairs = OmegaConf.to_container(value, resolve=True)
        return (
            ", ".join(f"{name!s}={one}" for name, one in pairs.items() if name != "_target_")
            if isinstance(pairs, dict)
            else str(pairs)
        )
    return str(value)
