"""verl's registration of the LLDS loss: ``actor.policy_loss.loss_mode=llds``.

verl calls a policy loss with padded log-probabilities, advantages and a mask, and with nothing else. LLDS also
needs the mini-batch's preserved tokens, the boundaries of actions and the answer's span; verl's batch carries
them, so :class:`WithLLDSContext` wraps verl's own loss function inside the actor worker and holds them ready for
the call. The maths is in :mod:`verl_llds.loss.llds`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from verl.trainer.ppo.core_algos import get_policy_loss_fn, register_policy_loss
from verl.utils.metric import AggregationType, Metric
from verl.workers.config.actor import PolicyLossConfig

from verl_llds.errors import PluginError
from verl_llds.loss.llds import llds_penalty
from verl_llds.settings import LLDSConfig

LOSS_MODE = "llds"

NUM_PRESERVED_KEY = "llds_num_preserved_tokens"
"""Batch entry written by `verl_llds.worker.LLDSTrainingWorker`."""


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
    """Policy tokens with advantage >= 0 in the mini-batch, over all micro-batches and ranks."""
    action_ids: Tensor | None
    """``[B, T]`` action numbers, or None where the agent loop gives none."""
    answer_mask: Tensor | None
    """``[B, T]`` 1 on answer tokens, or None."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Filled by the loss; shares that add up over micro-batches."""


_context: ContextVar[LossContext | None] = ContextVar("verl_llds_loss_context", default=None)


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
    context = _context.get()
    if context is None:
        raise PluginError(
            "loss_mode=llds ran in a worker that this plugin did not set up: select it with algorithm=grpo_llds "
            "(or another of our algorithms) and leave trainer.v1.trainer_mode as that sets it"
        )
    policy_loss = config.policy_loss
    base_loss, metrics = get_policy_loss_fn(policy_loss.base_loss)(
        old_log_prob=old_log_prob,
        log_prob=log_prob,
        advantages=advantages,
        response_mask=response_mask,
        loss_agg_mode=loss_agg_mode,
        config=config,
        rollout_is_weights=rollout_is_weights,
    )
    coef = policy_loss.llds.coef
    with torch.set_grad_enabled(coef != 0):
        penalty, context.metrics = llds_penalty(
            old_log_prob=old_log_prob,
            log_prob=log_prob,
            advantages=advantages,
            response_mask=response_mask,
            num_preserved_tokens=context.num_preserved_tokens,
            settings=policy_loss.llds,
            action_ids=context.action_ids,
            answer_mask=context.answer_mask,
            dp_size=config.global_batch_info["dp_size"],
        )
    return (base_loss if coef == 0 else base_loss + coef * penalty), metrics


class WithLLDSContext:
    """A loss function for verl's engine: verl's own, called with the LLDS context of its micro-batch."""

    def __init__(self, loss_fn: Callable[..., tuple[Tensor, dict[str, Any]]]) -> None:
        self.loss_fn = loss_fn

    def __call__(self, *, model_output: Any, data: Any, dp_group: Any = None) -> tuple[Tensor, dict[str, Any]]:
        """Return verl's loss and metrics, with the penalty's metrics added as sums over micro-batches."""
        width = int(data["responses"].offsets().diff().max())
        context = LossContext(
            num_preserved_tokens=int(data[NUM_PRESERVED_KEY]),
            action_ids=_padded(data.get("action_ids", None), width),
            answer_mask=_padded(data.get("answer_mask", None), width),
        )
        token = _context.set(context)
        try:
            loss, metrics = self.loss_fn(model_output=model_output, data=data, dp_group=dp_group)
        finally:
            _context.reset(token)
        for name, value in context.metrics.items():
            metrics[name] = Metric(aggregation=AggregationType.SUM, value=value)
        return loss, metrics


def _padded(values: Tensor | None, width: int) -> Tensor | None:
    """Return a jagged batch field as ``[B, width]``, zero-padded.

    Rows that verl adds to fill a batch copy our fields from a longer row, hence the cut.
    """
    if values is None:
        return None
    dense = values.to_padded_tensor(0) if values.is_nested else values
    return pad(dense[:, :width], (0, max(0, width - dense.shape[1])))
