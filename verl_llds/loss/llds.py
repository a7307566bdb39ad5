"""The LLDS penalty as a pure function of tensors and settings (arXiv 2512.04220 v2, eqs 4, 5, 9 and 10).

For the tokens k of the actions t of the responses i in the preserving set (advantage >= 0)::

    L = 1 / N * sum_i sum_t gate * sum_k w * relu(delta),    delta = old_log_prob - log_prob

N is the number of policy tokens of the preserving set, w the answer weight on the final answer and 1
elsewhere, and the gate that of `verl_llds.loss.displacement.gate_weights`.

Where this differs from the authors' code, it follows the paper:

* N counts preserved tokens only, and over the whole mini-batch, all micro-batches and ranks. The authors
  divide by all policy tokens of a micro-batch, so their effective coefficient follows the share of responses
  with an advantage >= 0.
* The coefficient and the answer weight are two factors; the authors take the lesser of the two on the answer.
* ``answer_mask`` is 1 **on** the answer; theirs is 0 there.

One choice is ours: the hinge is relu, whose gradient at a displacement of exactly 0 is 0. The gradients of
``maximum`` and ``clamp`` at that tie are not, and would push on tokens whose likelihood did not fall.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verl_llds.errors import ConfigError
from verl_llds.loss.displacement import action_ids_from_mask, gate_weights, masked_displacement
from verl_llds.settings import LLDSConfig


def preserved_mask(advantages: Tensor, response_mask: Tensor) -> Tensor:
    """Return the policy tokens of the preserving set, ``[B, T]`` bool.

    The set holds the responses with an advantage >= 0, so also those of a group whose rewards are all equal.
    """
    return response_mask.bool() & (advantages >= 0)


def count_preserved_tokens(advantages: Tensor, response_mask: Tensor) -> Tensor:
    """Return the number of policy tokens of the preserving set, a 0-dim int64 tensor.

    Its sum over the micro-batches and ranks of a mini-batch is what `llds_penalty` divides by.
    """
    return preserved_mask(advantages, response_mask).sum()


def llds_penalty(
    *,
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    num_preserved_tokens: int,
    settings: LLDSConfig,
    action_ids: Tensor | None = None,
    answer_mask: Tensor | None = None,
    dp_size: int = 1,
) -> tuple[Tensor, dict[str, float]]:
    """Return this micro-batch's share of L, **not** multiplied by ``settings.coef``, and its metrics.

    Shares carry the factor ``dp_size``, as in verl's ``agg_loss``, because data-parallel training averages
    gradients over ranks: the sum over micro-batches of the mean over ranks is the value of the mini-batch,
    however it was split. With no preserved token in the mini-batch the share is 0, with a zero gradient.

    Args:
        old_log_prob: ``[B, T]``, log-probabilities before the update; no gradient flows into it.
        log_prob: ``[B, T]``, log-probabilities of the policy being trained. fp16 and bf16 are upcast.
        advantages: ``[B, T]``, the same on all policy tokens of a row; ignored off-policy.
        response_mask: ``[B, T]``, true (or 1) on tokens the policy generated.
        num_preserved_tokens: `count_preserved_tokens` of the mini-batch over all micro-batches and ranks.
        settings: ``gate`` and ``answer_weight`` are read.
        action_ids: ``[B, T]`` int64, see `gate_weights`. Default: the runs of ``response_mask``.
        answer_mask: ``[B, T]``, 1 on the tokens of the final answer, tags included. They keep counting in the
            gate's sum, as in the paper.
        dp_size: number of data-parallel ranks.

    Returns:
        The scalar share of L, and plain floats, each a share too. Aggregate them with verl's
        ``AggregationType.SUM``, which averages over ranks and then sums over micro-batches; verl's default
        ``MEAN`` would divide them by the number of micro-batches. Aggregated, and with "preserved" short for
        policy tokens of the preserving set, they are:

        * ``actor/llds/penalty``: L;
        * ``actor/llds/open_token_frac``: fraction of preserved tokens under an open gate;
        * ``actor/llds/displaced_token_frac``: fraction of preserved tokens whose likelihood fell;
        * ``actor/llds/displacement``: mean of ``old_log_prob - log_prob`` over preserved tokens, positive if
          their likelihood fell.

    Raises:
        ConfigError: ``settings.answer_weight`` is not 1 and there is no ``answer_mask`` to apply it to.
    """
    if answer_mask is None and settings.answer_weight != 1:
        raise ConfigError(
            f"llds.answer_weight is {settings.answer_weight!r} but the batch has no answer_mask: "
            "use an agent loop that returns one, or set llds.answer_weight to 1"
        )
    preserved = preserved_mask(advantages, response_mask)
    displacement = masked_displacement(old_log_prob, log_prob, preserved)
    if action_ids is None:
        action_ids = action_ids_from_mask(response_mask)
    gate = gate_weights(displacement, action_ids, preserved, settings.gate_kind)
    hinge = gate * torch.relu(displacement)
    if answer_mask is not None:
        hinge = torch.where(answer_mask.bool(), settings.answer_weight * hinge, hinge)

    scale = dp_size / num_preserved_tokens if num_preserved_tokens else 0.0
    total = hinge.sum()
    sums = {
        "actor/llds/penalty": total.detach(),
        "actor/llds/open_token_frac": gate.sum(),
        "actor/llds/displaced_token_frac": (displacement > 0).sum(),
        "actor/llds/displacement": displacement.detach().sum(),
    }
    # One transfer from the device, not one per metric.
    values = torch.stack([value.double() for value in sums.values()]).tolist()
    return total * scale, {name: value * scale for name, value in zip(sums, values, strict=True)}
