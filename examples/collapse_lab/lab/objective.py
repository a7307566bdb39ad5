"""What an update minimises: GRPO's clipped surrogate, the LLDS penalty, and the terms the controls put beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from lab.batch import Batch
from verl_llds.loss.displacement import masked_displacement
from verl_llds.loss.llds import count_preserved_tokens, llds_penalty
from verl_llds.settings import LLDSConfig, Preserve

_LOG_RATIO_LIMIT = 20.0
"""verl clamps the log ratio to this before it takes the exponential."""


class Anchor(str, Enum):
    """A two-sided pull to the policy before the update, on all policy tokens, whatever the advantage."""

    NONE = "none"
    """None."""
    K3 = "k3"
    """``exp(d) - 1 - d`` for ``d = log_prob - old_log_prob``: an estimate of KL(old, new) of the sampled tokens.

    Its gradient is ``exp(d) - 1`` a token, so it is weak while the policy has hardly moved.
    """
    ABSOLUTE = "absolute"
    """``|d|``: the same gradient a token as the LLDS hinge, 1, but in both directions and on every row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveSettings:
    """Terms of the objective."""

    llds: dict[str, Any] = field(default_factory=lambda: {"coef": 0.0})
    """Arguments of `LLDSConfig`."""
    clip: float = 0.2
    """The ratio is clipped to 1 - clip .. 1 + clip."""
    dual_clip: float | None = None
    """Largest loss of a token with a negative advantage, as a multiple of it; None for no such bound."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    anchor: Anchor = Anchor.NONE
    """The pull to the old policy."""
    anchor_coef: float = 0.0
    """Its weight, on the mean over all policy tokens of the mini-batch."""


def surrogate(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float,
    dual_clip: float | None,
) -> Tensor:
    """Return PPO's clipped loss as the mean over the tokens of the mask; verl's ``vanilla`` to rounding.

    Args:
        old_log_prob: ``[B, T]``, no gradient flows into it.
        log_prob: ``[B, T]``.
        advantages: ``[B, T]``.
        mask: ``[B, T]`` bool, not empty.
        clip: see `ObjectiveSettings`.
        dual_clip: see `ObjectiveSettings`.
    """
    log_ratio = -masked_displacement(old_log_prob, log_prob, mask)
    ratio = log_ratio.clamp(-_LOG_RATIO_LIMIT, _LOG_RATIO_LIMIT).exp()
    losses = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))
    if dual_clip is not None:
        losses = torch.where(advantages < 0, torch.minimum(-advantages * dual_clip, losses), losses)
    return losses[mask].mean()


def anchor_term(anchor: Anchor, old_log_prob: Tensor, log_prob: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the anchor over the tokens of the mask."""
    log_ratio = -masked_displacement(old_log_prob, log_prob, mask)[mask]
    if anchor is Anchor.K3:
        log_ratio = log_ratio.clamp(-_LOG_RATIO_LIMIT, _LOG_RATIO_LIMIT)
        return (log_ratio.exp() - 1 - log_ratio).mean()
    assert anchor is Anchor.ABSOLUTE, "asked for without an anchor"
    return log_ratio.abs().mean()


@dataclass(frozen=True, slots=True)
class Terms:
    """One mini-batch's objective."""

    loss: Tensor
    """What is minimised."""
    metrics: dict[str, float]
    """Metrics of the penalty and of the anchor."""


def objective(
    *,
    batch: Batch,
    old_log_prob: Tensor,
    log_prob: Tensor,
    entropy: Tensor,
    advantages: Tensor,
    correct: Tensor,
    valid_searches: float,
    settings: ObjectiveSettings,
) -> Terms:
    """Return the objective of one mini-batch.

    The penalty is computed also where its coefficient is 0, for its metrics.

    Args:
        batch: the mini-batch.
        old_log_prob: ``[B, T]``, before the update.
        log_prob: ``[B, T]``, of the policy being trained.
        entropy: ``[B, T]``, of the policy being trained.
        advantages: ``[B]``.
        correct: ``[B]`` bool, the trajectories with a reward.
        valid_searches: mean over the step's trajectories.
        settings: what the objective is made of.
    """
    mask = batch.response_mask
    by_token = advantages[:, None].expand_as(log_prob)
    loss = surrogate(old_log_prob, log_prob, by_token, mask, clip=settings.clip, dual_clip=settings.dual_clip)
    llds = LLDSConfig(**settings.llds)
    num_preserved = count_preserved_tokens(by_token, mask, preserve=Preserve(llds.preserve), correct=correct)
    penalty, metrics = llds_penalty(
        old_log_prob=old_log_prob,
        log_prob=log_prob,
        advantages=by_token,
        response_mask=mask,
        num_preserved_tokens=int(num_preserved),
        settings=llds,
        num_policy_tokens=int(mask.sum()),
        action_ids=batch.action_ids,
        answer_mask=batch.answer_mask,
        correct=correct,
        valid_searches=valid_searches,
    )
    if llds.coef:
        loss = loss + llds.coef * penalty
    if settings.entropy_coef:
        loss = loss - settings.entropy_coef * entropy[mask].mean()
    if settings.anchor is not Anchor.NONE:
        term = anchor_term(settings.anchor, old_log_prob, log_prob, mask)
        loss = loss + settings.anchor_coef * term
        metrics["actor/anchor"] = term.item()
    return Terms(loss, metrics)
