"""The LLDS penalty as a pure function of tensors and settings (arXiv 2512.04220 v2, eqs 4, 5, 9 and 10).

For the tokens k of the actions t of the responses i in the preserving set (advantage >= 0)::

    L = 1 / N * sum_i sum_t gate * sum_k w * relu(delta),    delta = old_log_prob - log_prob

N is the number of policy tokens of the preserving set, w the answer weight on the final answer and 1
elsewhere, and the gate that of `verl_llds.loss.displacement.open_tokens`.

Where this differs from the authors' code, it follows the paper:

* N counts preserved tokens only, and over the whole mini-batch, all micro-batches and ranks. The authors
  divide by all policy tokens of a micro-batch, so their effective coefficient follows the share of responses
  with an advantage >= 0. ``normalizer=all`` divides by all policy tokens, of the whole mini-batch.
* The coefficient and the answer weight are two factors; the authors take the lesser of the two on the answer.
* ``answer_mask`` is 1 **on** the answer; theirs is 0 there.

Choices of ours: at a displacement of exactly 0 the hinge has gradient 0, as relu has. The gradients of ``maximum``
and ``clamp`` at that tie are not 0, and would push on tokens whose likelihood did not fall. And an advantage counts
as >= 0 from -1e-6 on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verl_llds.errors import ConfigError
from verl_llds.loss.displacement import (
    ADVANTAGE_TOLERANCE,
    action_ids_from_mask,
    masked_displacement,
    open_tokens,
)
from verl_llds.settings import Gate, LLDSConfig, Normalizer, Preserve


def preserved_mask(
    advantages: Tensor,
    response_mask: Tensor,
    *,
    preserve: Preserve = Preserve.NONNEGATIVE,
    correct: Tensor | None = None,
) -> Tensor:
    """Return the policy tokens of the preserving set, ``[B, T]`` bool.

    Args:
        advantages: ``[B, T]``.
        response_mask: ``[B, T]``, true (or 1) on tokens the policy generated.
        preserve: which responses the set holds.
        correct: ``[B]`` bool, the responses with a correct answer; read by ``CORRECT``.

    Raises:
        ConfigError: the set is that of the correct responses, and which ones are is not given.
    """
    policy = response_mask.bool()
    if preserve is Preserve.NONNEGATIVE:
        return policy & (advantages >= -ADVANTAGE_TOLERANCE)
    if preserve is Preserve.POSITIVE:
        return policy & (advantages > ADVANTAGE_TOLERANCE)
    if correct is None:
        raise ConfigError(
            "llds.preserve=correct needs each trajectory's reward, which this batch does not hold: "
            "use preserve=nonnegative or preserve=positive"
        )
    return policy & correct[:, None]


def count_preserved_tokens(
    advantages: Tensor,
    response_mask: Tensor,
    *,
    preserve: Preserve = Preserve.NONNEGATIVE,
    correct: Tensor | None = None,
) -> Tensor:
    """Return the number of policy tokens of the preserving set, a 0-dim int64 tensor.

    Its sum over the micro-batches and ranks of a mini-batch is what `llds_penalty` divides by.
    """
    return preserved_mask(advantages, response_mask, preserve=preserve, correct=correct).sum()


def llds_penalty(
    *,
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    num_preserved_tokens: int,
    settings: LLDSConfig,
    num_policy_tokens: int | None = None,
    action_ids: Tensor | None = None,
    answer_mask: Tensor | None = None,
    correct: Tensor | None = None,
    valid_searches: float | None = None,
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
        settings: every field but ``coef`` is read here; ``coef`` only for a metric.
        num_policy_tokens: policy tokens of the mini-batch, all micro-batches and ranks; read by ``normalizer=all``.
        action_ids: ``[B, T]`` int64, see `open_tokens`. Default: the runs of ``response_mask``.
        answer_mask: ``[B, T]``, 1 on the tokens of the final answer, tags included.
        correct: ``[B]`` bool, see `preserved_mask`.
        valid_searches: mean number of valid searches of the step's trajectories; read by adaptive answer weights.
        dp_size: number of data-parallel ranks.

    Returns:
        The scalar share of L, and plain floats, each a share too. Aggregate them with verl's
        ``AggregationType.SUM``, which averages over ranks and then sums over micro-batches; verl's default
        ``MEAN`` would divide them by the number of micro-batches. Aggregated, and with "preserved" short for
        policy tokens of the preserving set, they are:

        * ``actor/llds/penalty``: L;
        * ``actor/llds/loss``: coef * L, what is added to the base loss;
        * ``actor/llds/effective_coef``: the coefficient of the penalty's mean over preserved tokens, ``coef``
          itself unless ``normalizer=all`` dilutes it; 0 if nothing is preserved;
        * ``actor/llds/open_token_frac``: fraction of preserved tokens under an open gate;
        * ``actor/llds/penalised_token_frac``: fraction of preserved tokens that pay, whatever their weight;
        * ``actor/llds/displaced_token_frac``: fraction of preserved tokens whose likelihood fell;
        * ``actor/llds/displacement``: mean of ``old_log_prob - log_prob`` over preserved tokens, positive if
          their likelihood fell.

    Raises:
        ConfigError: the settings ask for something the batch does not hold: an answer mask, rewards, the number
            of valid searches, or the number of policy tokens.
    """
    if answer_mask is None and settings.needs_answer_mask:
        raise ConfigError(
            f"llds.answer_weight={settings.answer_weight} with answer_in_gate={settings.answer_in_gate} needs an "
            "answer_mask, which this batch does not hold: use an agent loop that returns one (search=search_r1), "
            "or answer_weight=1 and answer_in_gate=true"
        )
    preserved = preserved_mask(advantages, response_mask, preserve=Preserve(settings.preserve), correct=correct)
    with torch.no_grad():
        displacement = masked_displacement(old_log_prob, log_prob, preserved)
    is_open = open_tokens(
        displacement,
        action_ids_from_mask(response_mask) if action_ids is None else action_ids,
        preserved,
        Gate(settings.gate),
        counted=None if settings.answer_in_gate or answer_mask is None else ~answer_mask.bool(),
        tolerance=settings.tolerance,
    )
    # Not "greater than", which would hide a NaN.
    displaced = ~(displacement <= 0)
    paying = is_open & (~(displacement <= settings.tolerance) if settings.tolerance else displaced)
    hinge = masked_displacement(old_log_prob, log_prob, paying)
    if settings.tolerance:
        hinge = torch.where(paying, hinge - settings.tolerance, 0.0)
    if answer_mask is not None and settings.answer_weight != 1:
        weight = settings.answer_weight_at(valid_searches)
        hinge = hinge * torch.ones_like(hinge).masked_fill_(answer_mask.bool(), weight)

    scale = _scale(num_preserved_tokens, dp_size)
    loss_scale = scale if settings.normalizer == Normalizer.PRESERVED.value else _all_scale(num_policy_tokens, dp_size)
    penalty = hinge.sum() * loss_scale
    counts = torch.stack([torch.count_nonzero(tokens) for tokens in (preserved, is_open, paying, displaced)])
    # One transfer from the device, not one per metric.
    sums = torch.cat([torch.stack([penalty.detach(), displacement.sum()]).double(), counts.double()]).tolist()
    return penalty, {
        "actor/llds/penalty": sums[0],
        "actor/llds/loss": settings.coef * sums[0],
        "actor/llds/effective_coef": settings.coef * sums[2] * loss_scale,
        "actor/llds/open_token_frac": sums[3] * scale,
        "actor/llds/penalised_token_frac": sums[4] * scale,
        "actor/llds/displaced_token_frac": sums[5] * scale,
        "actor/llds/displacement": sums[1] * scale,
    }


def _scale(num_tokens: int, dp_size: int) -> float:
    return dp_size / num_tokens if num_tokens else 0.0


def _all_scale(num_policy_tokens: int | None, dp_size: int) -> float:
    if num_policy_tokens is None:
        raise ConfigError(
            "llds.normalizer=all divides by the mini-batch's policy tokens, whose number is not given: "
            "pass num_policy_tokens, or use normalizer=preserved"
        )
    return _scale(num_policy_tokens, dp_size)
