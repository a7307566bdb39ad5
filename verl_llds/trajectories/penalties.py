"""The LLDS penalty of each token, for one who looks at it: the same maths as the loss, before anything is summed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from verl_llds.loss.displacement import masked_displacement, open_tokens
from verl_llds.loss.llds import preserved_mask
from verl_llds.settings import Gate, LLDSConfig, Preserve


class TokenPenalties(NamedTuple):
    """What the loss would make of a step's update as a whole."""

    preserved: Tensor
    """``[B]`` bool, trajectories of the preserving set."""
    gate: Tensor
    """``[B, T]`` bool, tokens under an open gate."""
    penalty: Tensor
    """``[B, T]`` nats: answer weight times the displacement beyond the tolerance; 0 under a closed gate."""


def token_penalties(
    *,
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    action_ids: Tensor,
    answer_mask: Tensor,
    scores: Tensor,
    settings: LLDSConfig,
    valid_searches: float | None,
) -> TokenPenalties:
    """Return each token's part of the penalty; over the preserved tokens, their sum is `llds_penalty`'s times N.

    Args:
        old_log_prob: ``[B, T]`` before the update.
        log_prob: ``[B, T]`` after it.
        advantages: ``[B, T]``.
        response_mask: ``[B, T]``, 1 on tokens that carry a gradient.
        action_ids: ``[B, T]`` int64, see `verl_llds.loss.displacement.open_tokens`.
        answer_mask: ``[B, T]``, 1 on the final answer.
        scores: ``[B]`` rewards; read by ``preserve=correct``.
        settings: of the loss.
        valid_searches: mean number of valid searches of the step; read by adaptive answer weights.
    """
    correct = scores >= settings.correct_reward
    tokens = preserved_mask(advantages, response_mask, preserve=Preserve(settings.preserve), correct=correct)
    displacement = masked_displacement(old_log_prob, log_prob, tokens)
    gate = open_tokens(
        displacement,
        action_ids,
        tokens,
        Gate(settings.gate),
        counted=None if settings.answer_in_gate else ~answer_mask.bool(),
        tolerance=settings.tolerance,
    )
    fallen = torch.where(displacement <= settings.tolerance, 0.0, displacement - settings.tolerance)
    weight = torch.ones_like(fallen)
    if settings.answer_weight != 1:
        weight.masked_fill_(answer_mask.bool(), settings.answer_weight_at(valid_searches))
    return TokenPenalties(tokens.any(dim=1), gate, torch.where(gate, fallen * weight, 0.0))
