"""Checks made before a run starts anything heavy, each with one message that says what to do."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from omegaconf import DictConfig

from verl_llds.errors import ConfigError
from verl_llds.search.client import SearchClient
from verl_llds.search.engine import check_engine
from verl_llds.search.environment import load_tools, make_environment
from verl_llds.search.settings import OnFailure, SearchConfig

FAITHFUL_CLIP_RATIO_C = 100.0
"""Dual clip from here on is out of reach: the authors' code clamps the ratio at 100."""

_NEED_SIBLINGS = frozenset({"grpo_passk"})
"""verl's estimators that raise where a group has one member."""

_PATIENCE_S = 10.0
"""Longest wait for a retriever that is to be there before a run starts."""

_EXPERT_FIELDS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def check_config(config: DictConfig) -> None:
    """Refuse what would silently do nothing under ``loss_mode=llds``.

    Raises:
        ConfigError: naming the settings at fault and a value that works.
    """
    actor = config.actor_rollout_ref.actor
    policy_loss = actor.policy_loss
    if policy_loss.get("loss_mode") != "llds" or policy_loss.llds.coef == 0:
        return
    correction = config.algorithm.get("rollout_correction")
    if correction is not None and correction.get("bypass_mode"):
        raise ConfigError(
            "algorithm.rollout_correction.bypass_mode=true makes the rollout engine's log-probabilities the old "
            "policy, so LLDS would see engine noise as displacement: set it to false, or algorithm.llds.coef=0"
        )
    if config.data.train_batch_size <= actor.ppo_mini_batch_size and actor.ppo_epochs == 1:
        raise ConfigError(
            f"data.train_batch_size={config.data.train_batch_size} and "
            f"actor_rollout_ref.actor.ppo_mini_batch_size={actor.ppo_mini_batch_size} make one update per "
            "rollout, in which no likelihood has moved and LLDS is zero: make the mini-batch smaller "
            "(the paper makes 10 updates per rollout)"
        )


def cautions(config: DictConfig, *, faithful: bool = True) -> list[str]:
    """Return one line for each setting that works, but not as its user may expect.

    Args:
        config: the composed run.
        faithful: whether the baseline of the paper was asked for, rather than verl's current defaults.
    """
    actor = config.actor_rollout_ref.actor
    found = []
    if actor.policy_loss.get("loss_mode") == "llds" and actor.policy_loss.llds.coef > 0 and actor.ppo_epochs > 1:
        found.append(
            f"actor_rollout_ref.actor.ppo_epochs={actor.ppo_epochs}: from the second epoch on, LLDS holds the policy "
            "to log-probabilities that are a whole epoch old, so displacement and penalty grow with each; the paper "
            "makes one epoch of ten updates"
        )
    if faithful and actor.clip_ratio_c < FAITHFUL_CLIP_RATIO_C:
        found.append(
            f"actor_rollout_ref.actor.clip_ratio_c={actor.clip_ratio_c}: dual clip damps the collapse that the "
            "paper's baseline shows; leave it at this algorithm's 1e6, or choose algorithm=grpo_guarded"
        )
    store = os.environ.get("MLFLOW_TRACKING_URI", "sqlite:")
    if "mlflow" in config.trainer.logger and urlsplit(store).scheme in ("", "file") and store != "databricks":
        found.append(
            f"MLFLOW_TRACKING_URI={store}: mlflow's file store turns the names of metrics into folders, where "
            "llds/displacement/correct cannot be a file as well, so that it loses whole steps: use a database, such "
            "as sqlite:///mlflow.db"
        )
    return found


def check_experts(config: DictConfig, *, local_only: bool = False) -> None:
    """Refuse a mixture of experts whose router may choose other experts in the update than it did before.

    The likelihood of a token then falls because another expert spoke, which no penalty on this one can mend.

    Args:
        config: the composed run.
        local_only: look at models in local directories alone, and let those pass that would have to be fetched.

    Raises:
        ConfigError: naming the model and the setting that replays the router's choices.
    """
    actor, model = config.actor_rollout_ref.actor, config.actor_rollout_ref.model
    policy_loss = actor.policy_loss
    if policy_loss.get("loss_mode") != "llds" or policy_loss.llds.coef == 0:
        return
    if local_only and not os.path.isdir(os.path.expanduser(model.path)):
        return
    num_experts = _num_experts(model.path, bool(model.get("trust_remote_code", False)))
    engine = actor.get(actor.strategy)
    replay = engine.get("router_replay") if engine is not None else None
    if num_experts > 1 and (replay is None or replay.mode == "disabled"):
        raise ConfigError(
            f"{model.path} is a mixture of {num_experts} experts and actor.strategy={actor.strategy} does not replay "
            "the router's choices, so LLDS cannot reach the expert that lost likelihood: use "
            "actor_rollout_ref.actor.strategy=megatron with actor.megatron.router_replay.mode=R2, or "
            "algorithm.llds.coef=0"
        )


def _num_experts(path: str, trust_remote_code: bool) -> int:
    from transformers import AutoConfig
    from verl.utils.fs import copy_to_local

    # verl's own way to a model, which may lie in a remote file system.
    local = copy_to_local(os.path.expanduser(path))
    config = AutoConfig.from_pretrained(local, trust_remote_code=trust_remote_code).get_text_config()
    return max(int(getattr(config, name, None) or 0) for name in _EXPERT_FIELDS)


def check_search(config: DictConfig) -> SearchConfig:
    """Return the settings of the search environment, after trying all of it that needs no model and no retriever.

    Raises:
        ConfigError: for a setting that cannot work, a rollout engine that cannot stop at a tag, or a tool that
            cannot be made.
    """
    settings = SearchConfig.from_run(config)
    if config.get("search") is not None:
        check_engine(config.actor_rollout_ref.rollout)
        if settings.on_failure is OnFailure.MASK and config.algorithm.adv_estimator in _NEED_SIBLINGS:
            raise ConfigError(
                f"algorithm.adv_estimator={config.algorithm.adv_estimator} cannot do with a group of one, which a "
                "failed trajectory becomes under search.on_failure=mask: set it to penalise or raise, or use "
                "algorithm.adv_estimator=grpo"
            )
        load_tools(settings.tools)
    return settings


def check_retriever(settings: SearchConfig) -> None:
    """Ask the retriever one question.

    Raises:
        RetrievalError: if it does not answer.
    """
    asyncio.run(_ask(replace(settings, max_attempts=2, max_wait_s=min(settings.max_wait_s, _PATIENCE_S))))


async def _ask(settings: SearchConfig) -> None:
    client = SearchClient(settings)
    try:
        await client.search("Is the retriever there?")
    finally:
        await client.close()


def check_chat_template(tokenizer: Any, model: str, settings: SearchConfig | None) -> None:
    """Refuse a tokenizer that cannot render the chats of this run.

    Raises:
        ConfigError: naming the model and the setting that supplies a template.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            f"the tokenizer of {model} has no chat template, so prompts cannot be rendered: set "
            "actor_rollout_ref.model.custom_chat_template, or add a chat_template to the tokenizer"
        )
    if settings is not None:
        # Native tool calls read their turns off the template here.
        make_environment(settings, SearchClient(settings), tokenizer)
