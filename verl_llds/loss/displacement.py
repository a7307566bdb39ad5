"""How far the likelihood of sampled tokens fell, and where that opens the LLDS gate (arXiv 2512.04220 v2).

The displacement is ``old_log_prob - log_prob``: **positive means that the likelihood fell**. This is the sign
of the paper's losses (eqs 4, 9, 10); its Definition 4.1 uses the opposite one.

All tensors are ``[B, T]``: B rows of a batch, T the padded response length, actions and observations alike.
An *action* is one contiguous span that the policy generated.

Choices the paper leaves open:

* What lies off the mask is replaced, not multiplied by 0, so that nothing at an observation or at padding, not
  even inf or NaN, reaches the value or the gradient. The authors' code multiplies by the mask.
* Gate sums are taken in float64, because what counts is their sign.
* Actions can be numbered explicitly. The authors' code always splits runs of the mask, which merges turns
  that touch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from verl_llds.settings import Gate

ADVANTAGE_TOLERANCE = 1e-6
"""Up to this an advantage counts as 0: a reward minus the mean of equal rewards need not be exactly 0."""


def action_ids_from_mask(response_mask: Tensor) -> Tensor:
    """Number the actions of each row.

    Args:
        response_mask: ``[B, T]``, true (or 1) on tokens the policy generated.

    Returns:
        ``[B, T]`` int64: 0 off-policy, and 1, 2, ... on the maximal runs of policy tokens, counted per row.
        Turns with no masked token between them are one run.
    """
    policy = response_mask.bool()
    previous = F.pad(policy, (1, 0))[:, :-1]
    return (policy & ~previous).cumsum(dim=1).mul_(policy)


def masked_displacement(old_log_prob: Tensor, log_prob: Tensor, mask: Tensor) -> Tensor:
    """Return ``old_log_prob - log_prob`` on the mask, and 0 with zero gradient off it.

    Args:
        old_log_prob: ``[B, T]``, log-probabilities before the update. Detached here.
        log_prob: ``[B, T]``, log-probabilities of the policy being trained.
        mask: ``[B, T]`` bool.

    Returns:
        ``[B, T]`` in the wider of the input types, float32 at least. Positive where the likelihood fell.
    """
    dtype = torch.promote_types(torch.promote_types(old_log_prob.dtype, log_prob.dtype), torch.float32)
    return torch.where(mask, old_log_prob.detach().to(dtype) - log_prob.to(dtype), 0.0)


def open_tokens(
    displacement: Tensor,
    action_ids: Tensor,
    mask: Tensor,
    gate: Gate,
    *,
    counted: Tensor | None = None,
    tolerance: float = 0.0,
) -> Tensor:
    """Return the tokens that the penalty is open on, ``[B, T]`` bool.

    A sum of exactly 0 leaves the gate closed. A sum of NaN opens it, so that the penalty is NaN too.

    Args:
        displacement: ``[B, T]`` of `masked_displacement`: positive where the likelihood fell, 0 off the mask.
        action_ids: ``[B, T]`` int64 in 0..T, equal on the tokens of one action and not 0 on them.
        mask: ``[B, T]`` bool, the tokens that count; the result is false elsewhere.
        gate: ``TOKEN`` opens the whole mask; ``RESPONSE`` a row, and ``ACTION`` an action, whose displacement
            sums to more than 0 over the mask.
        counted: ``[B, T]`` bool, the tokens whose displacement enters the sums; default ``mask``.
        tolerance: nats taken off each counted token before the sum.
    """
    if gate is Gate.TOKEN:
        return mask
    fallen = displacement.detach().double()
    if tolerance or counted is not None:
        fallen = torch.where(mask if counted is None else mask & counted, fallen - tolerance, 0.0)
    if gate is Gate.RESPONSE:
        return mask & ~(fallen.sum(dim=1, keepdim=True) <= 0)
    # T + 1 columns hold any numbering, without asking the device for the largest id.
    sums = fallen.new_zeros(fallen.shape[0], fallen.shape[1] + 1).scatter_add_(1, action_ids, fallen)
    return mask & ~(sums <= 0).gather(1, action_ids)
