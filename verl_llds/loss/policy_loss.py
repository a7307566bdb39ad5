"""verl's registration of the LLDS loss: ``actor.policy_loss.loss_mode=llds``.

verl calls a policy loss with padded log-probabilities, advantages and a mask, and with nothing else. What LLDS
needs besides is held ready in a context variable by `verl_llds.loss.micro_batch.WithLLDSContext`, which wraps
verl's own loss function inside the actor worker. The maths is in :mod:`verl_llds.loss.llds`.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import get_policy_loss_fn, register_policy_loss
from verl.workers.config.actor import PolicyLossConfig

from verl_llds.errors import PluginError
from verl_llds.loss.llds import llds_penalty
from verl_llds.settings import LLDSConfig

LOSS_MODE = "llds"


@dataclass
class LLDSPolicyLossConfig(PolicyLossConfig):  # type: ignore[misc]
    """verl's policy-loss settings with those of LLDS; chosen by ``_target_`` in ``config/algorithm``."""

    base_loss: str = "vanilla"
    """The policy loss the penalty is added to, by its name in verl's registry."""

    llds: LLDSConfig = field(default_factory=LLDSConfig)
    """The penalty."""


@dataclass
class LossContext:
    """What one micro-batch's LLDS loss needs beyond verl's arguments."""

    num_preserved_tokens: int
    """Policy tokens of the preserving set in the mini-batch, over all micro-batches and ranks."""
    num_policy_tokens: int
    """Policy tokens in the mini-batch, over all micro-batches and ranks."""
    dp_size: int
    """Data-parallel ranks."""
    action_ids: Tensor | None = None
    """``[B, T]`` action numbers, or None where the agent loop gives none."""
    answer_mask: Tensor | None = None
    """``[B, T]`` 1 on answer tokens, or None."""
    correct: Tensor | None = None
    """``[B]`` bool, the trajectories with a correct answer, or None where there are no rewards."""
    valid_searches: float | None = None
    """Mean number of valid searches of the step's trajectories, or None where nobody counts them."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Filled by `penalty`; shares that add up over micro-batches."""

    def penalty(
        self, *, old_log_prob: Tensor, log_prob: Tensor, advantages: Tensor, response_mask: Tensor, settings: LLDSConfig
    ) -> Tensor:
        """Return the LLDS penalty of this micro-batch and keep its metrics."""
        value, self.metrics = llds_penalty(
            old_log_prob=old_log_prob,
            log_prob=log_prob,
            advantages=advantages,
            response_mask=response_mask,
            num_preserved_tokens=self.num_preserved_tokens,
            num_policy_tokens=self.num_policy_tokens,
            settings=settings,
            action_ids=self.action_ids,
            answer_mask=self.answer_mask,
            correct=self.correct,
            valid_searches=self.valid_searches,
            dp_size=self.dp_size,
        )
        return value


current: ContextVar[LossContext | None] = ContextVar("verl_llds_loss_context", default=None)
"""The micro-batch whose loss is being computed."""


@register_policy_loss(LOSS_MODE)  # type: ignore[untyped-decorator]
def llds_policy_loss(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """Return the base policy loss plus ``coef`` times the LLDS penalty.

    All tensors are ``[B, T]``. With ``coef=0`` the result is the base loss itself, bit for bit; the penalty is
    then computed for its metrics alone.

    Raises:
        PluginError: if verl's stock worker calls it, which cannot supply what LLDS needs.
    """
    context = current.get()
    if context is None:
        raise PluginError(
            "loss_mode=llds ran in a worker that this plugin did not set up: select it with algorithm=grpo_llds "
            "(or another of our algorithms) and leave trainer.v1.trainer_mode as that sets it"
        )
    policy_loss = config.policy_loss
    coef = policy_loss.llds.coef
    with torch.set_grad_enabled(coef != 0):
        penalty = context.penalty(
            old_log_prob=old_log_prob,
            log_prob=log_prob,
            advantages=advantages,
            response_mask=response_mask,
            settings=policy_loss.llds,
        )
    base_loss, metrics = get_policy_loss_fn(policy_loss.base_loss)(
        old_log_prob=old_log_prob,
        log_prob=log_prob,
        advantages=advantages,
        response_mask=response_mask,
        loss_agg_mode=loss_agg_mode,
        config=config,
        rollout_is_weights=rollout_is_weights,
    )
    return (base_loss if coef == 0 else base_loss + coef * penalty), metrics
