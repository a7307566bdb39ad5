"""Checks made before a run starts anything heavy, each with one message that says what to do."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig

from verl_llds.errors import ConfigError
from verl_llds.search.client import SearchClient
from verl_llds.search.settings import SearchConfig


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


def check_retriever(settings: SearchConfig) -> None:
    """Ask the retriever one question.

    Raises:
        RetrievalError: if it does not answer.
    """
    asyncio.run(_ask(replace(settings, max_attempts=2)))


async def _ask(settings: SearchConfig) -> None:
    client = SearchClient(settings)
    try:
        await client.search("Is the retriever there?")
    finally:
        await client.close()


def check_chat_template(tokenizer: Any, model: str) -> None:
    """Refuse a tokenizer that cannot render a chat.

    Raises:
        ConfigError: naming the model and the setting that supplies a template.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            f"the tokenizer of {model} has no chat template, so prompts cannot be rendered: set "
            "actor_rollout_ref.model.custom_chat_template, or add a chat_template to the tokenizer"
        )
