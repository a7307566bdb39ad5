"""Compose and check a run's configuration without starting it, on any machine."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

from omegaconf import DictConfig, OmegaConf

from verl_llds.checks import cautions, check_config, check_experts, check_search
from verl_llds.diagnostics.settings import DiagnosticsConfig
from verl_llds.errors import LLDSError
from verl_llds.hydra_errors import explain


def compose_run(overrides: Sequence[str]) -> DictConfig:
    """Return the configuration that ``python -m verl.trainer.main_ppo OVERRIDES`` would run with.

    Raises:
        hydra.errors.HydraException: for an unknown choice or key; Hydra names the ones there are.
    """
    return _compose(overrides, return_hydra_config=False)


def run_cautions(overrides: Sequence[str]) -> list[str]:
    """Return what the driver would warn of at the start of that run."""
    config = _compose(overrides, return_hydra_config=True)
    callback = config.hydra.callbacks.get("verl_llds_checks")
    return [] if callback is None else cautions(config, faithful=callback.faithful)


def _compose(overrides: Sequence[str], *, return_hydra_config: bool) -> DictConfig:
    import verl  # noqa: F401  # attaches the plugin, and with it the config groups
    from hydra import compose, initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        config: DictConfig = compose("ppo_trainer", list(overrides), return_hydra_config=return_hydra_config)
    return config


def validate_run(config: DictConfig) -> None:
    """Build and check every setting that verl's driver checks before it starts Ray, and ours.

    Raises:
        verl_llds.errors.ConfigError: for a setting of ours that cannot work.
        Exception: whatever verl raises for a setting of its own.
    """
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    config = OmegaConf.create(config)
    OmegaConf.resolve(config)
    check_config(config)
    check_experts(config, local_only=True)
    check_search(config)
    DiagnosticsConfig.from_mapping(config.get("diagnostics"))
    if not _has_engine():
        # With LoRA, verl asks vLLM itself for the largest rank; a machine without it can check all the rest.
        config.actor_rollout_ref.model.lora_rank = 0
    validate_config(
        config=config,
        use_reference_policy=need_reference_policy(config),
        use_critic=need_critic(config),
    )


def _has_engine() -> bool:
    try:
        metadata.version("vllm")
    except metadata.PackageNotFoundError:
        return False
    return True


def describe_run(config: DictConfig) -> str:
    """Return the facts of a run that a reader wants to see before it costs anything."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    loss = actor.policy_loss
    num_rollouts = config.data.train_batch_size * rollout.n
    num_updates = -(-config.data.train_batch_size // actor.ppo_mini_batch_size) * actor.ppo_epochs
    lines = [
        f"model      {config.actor_rollout_ref.model.path}",
        f"data       {config.data.train_files}",
        f"loss       {loss.loss_mode}, advantages {config.algorithm.adv_estimator}",
        f"rollouts   {num_rollouts} a step ({config.data.train_batch_size} questions x {rollout.n}), "
        f"{num_updates} updates",
        f"devices    {config.trainer.nnodes} x {config.trainer.n_gpus_per_node} ({config.trainer.device})",
    ]
    if "llds" in loss:
        lines.insert(
            3,
            f"llds       {loss.base_loss} + {loss.llds.coef} x penalty, {loss.llds.gate} gate, "
            f"{loss.llds.preserve} preserved, answer weight {loss.llds.answer_weight}",
        )
    if config.get("search") is not None:
        lines.append(f"search     {config.search.url}, top {config.search.topk}, {config.search.max_turns} turns")
    return "\n".join(lines)


def reason(error: BaseException) -> str:
    """Return what to tell a user, in one line: our own message where it is the cause, else the error's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LLDSError):
            return str(cause)
        cause = cause.__cause__
    return explain(error) or " ".join(f"{type(error).__name__}: {error}".split())
