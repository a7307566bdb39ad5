"""Sums of likelihood by kind of trajectory and place of the action: what every ``llds`` likelihood metric is made of.

Sums add up over micro-batches, mini-batches and ranks, whatever the split; shares and means do not. So workers
report sums, and the driver divides them once.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from verl_llds.loss.displacement import ADVANTAGE_TOLERANCE, masked_displacement

CLASSES = ("correct", "zero", "incorrect")
"""Trajectories by advantage: above 0, 0, and below 0."""

PLACES = ("first_action", "middle_action", "last_action")
"""Where in its row an action stands. A row's only action is its first."""

QUANTITIES = ("tokens", "old_log_prob", "log_prob", "displaced_tokens", "actions", "displaced_actions")
"""What is summed; a token is displaced if its likelihood fell, an action if its summed likelihood did."""


def tally(
    *, old_log_prob: Tensor, log_prob: Tensor, advantages: Tensor, response_mask: Tensor, action_ids: Tensor
) -> Tensor:
    """Return the sums, ``[3 classes, 3 places, 6 quantities]`` float64, without gradient.

    Tokens whose log-probability is not finite under either policy are left out.

    Args:
        old_log_prob: ``[B, T]``, log-probabilities before the update.
        log_prob: ``[B, T]``, log-probabilities of the policy compared with it.
        advantages: ``[B, T]``, the same on all policy tokens of a row.
        response_mask: ``[B, T]``, true (or 1) on tokens the policy generated.
        action_ids: ``[B, T]`` int64 in 0..T, equal on the tokens of one action and not 0 on them.
    """
    old_log_prob, log_prob = old_log_prob.detach(), log_prob.detach()
    mask = response_mask.bool() & torch.isfinite(old_log_prob) & torch.isfinite(log_prob)
    displacement = masked_displacement(old_log_prob, log_prob, mask).double()
    ids = torch.where(mask, action_ids, 0)
    bins = 3 * _classes(advantages) + _places(ids)

    rows, width = mask.shape
    action_sums = displacement.new_zeros(rows, width + 1).scatter_add(1, ids, displacement)
    is_start = mask & _starts(ids)
    quantities = torch.stack(
        [
            mask.double(),
            torch.where(mask, old_log_prob, 0.0).double(),
            torch.where(mask, log_prob, 0.0).double(),
            (displacement > 0).double(),
            is_start.double(),
            (is_start & (action_sums.gather(1, ids) > 0)).double(),
        ],
        dim=-1,
    )
    sums = quantities.new_zeros(9, len(QUANTITIES))
    sums.index_add_(0, torch.where(mask, bins, 0).flatten(), quantities.flatten(0, 1) * mask.flatten()[:, None])
    return sums.reshape(3, 3, len(QUANTITIES))


def _classes(advantages: Tensor) -> Tensor:
    return torch.where(advantages > ADVANTAGE_TOLERANCE, 0, torch.where(advantages < -ADVANTAGE_TOLERANCE, 2, 1))


def _places(ids: Tensor) -> Tensor:
    last = ids.amax(dim=1, keepdim=True)
    first = torch.where(ids > 0, ids, last).amin(dim=1, keepdim=True)
    return torch.where(ids == first, 0, torch.where(ids == last, 2, 1))


def _starts(ids: Tensor) -> Tensor:
    """Return true on the first token of each action, whose tokens need not be neighbours."""
    width = ids.shape[1]
    at = torch.arange(width, device=ids.device).expand_as(ids)
    first = torch.full((ids.shape[0], width + 1), width, device=ids.device).scatter_reduce(1, ids, at, "amin")
    return first.gather(1, ids) == at


def flatten(sums: Tensor, prefix: str) -> dict[str, float]:
    """Return a tally as named numbers: ``{prefix}/{class}/{place}/{quantity}``."""
    values = iter(sums.flatten().tolist())
    return {
        f"{prefix}/{kind}/{place}/{what}": next(values) for kind in CLASSES for place in PLACES for what in QUANTITIES
    }


def unflatten(metrics: Mapping[str, float], prefix: str) -> Tensor:
    """Return the tally that `flatten` named."""
    names = [f"{prefix}/{kind}/{place}/{what}" for kind in CLASSES for place in PLACES for what in QUANTITIES]
    return torch.tensor([metrics[name] for name in names], dtype=torch.float64).reshape(3, 3, len(QUANTITIES))


def facts(sums: Tensor, prefix: str) -> dict[str, float]:
    """Return means and shares by class, and by class and place; a quantity with no tokens is left out.

    With ``{where}`` a class, or a class and a place, they are ``{prefix}/log_prob/{where}/old`` and ``/new``,
    ``{prefix}/displacement/{where}`` (mean of old - new per token, positive if the likelihood fell),
    ``{prefix}/displaced_token_frac/{where}`` and ``{prefix}/displaced_action_frac/{where}``.
    """
    found: dict[str, float] = {}
    for kind, places in zip(CLASSES, sums, strict=True):
        found.update(_shares(places.sum(dim=0), prefix, kind))
        for place, values in zip(PLACES, places, strict=True):
            found.update(_shares(values, prefix, f"{kind}/{place}"))
    return found


def _shares(values: Tensor, prefix: str, where: str) -> dict[str, float]:
    tokens, old, new, displaced_tokens, actions, displaced_actions = values.tolist()
    if tokens == 0:
        return {}
    return {
        f"{prefix}/log_prob/{where}/old": old / tokens,
        f"{prefix}/log_prob/{where}/new": new / tokens,
        f"{prefix}/displacement/{where}": (old - new) / tokens,
        f"{prefix}/displaced_token_frac/{where}": displaced_tokens / tokens,
        f"{prefix}/displaced_action_frac/{where}": displaced_actions / actions,
    }
