"""Compose and check a run's configuration without starting it, on any machine."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from verl_llds.checks import check_config


def compose_run(overrides: Sequence[str]) -> DictConfig:
    """Return the configuration that ``python -m verl.trainer.main_ppo OVERRIDES`` would run with.

    Raises:
        hydra.errors.HydraException: for an unknown choice or key; Hydra names the ones there are.
    """
    import verl  # noqa: F401  # attaches the plugin, and with it the config groups
    from hydra import compose, initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        config: DictConfig = compose("ppo_trainer", overrides=list(overrides))
    return config


def validate_run(config: DictConfig) -> None:
    """Build and check every setting that verl's driver checks before it starts Ray, and ours.

    Raises:
        verl_llds.errors.ConfigError: for a setting of ours that cannot work.
        Exception: whatever verl raises for a setting of its own.
    """
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    from verl_llds.search.agent_loop import search_settings

    config = OmegaConf.create(config)
    OmegaConf.resolve(config)
    check_config(config)
    search_settings(config)
    validate_config(
        config=config,
        use_reference_policy=need_reference_policy(config),
        use_critic=need_critic(config),
    )
