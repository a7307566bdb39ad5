"""Likelihood facts of one step, as functions of tensors and plain records.

The displacement is ``old_log_prob - log_prob``: **positive means that the likelihood fell**. Tensors are
``[B, T]``: B trajectories, T the padded response length. Sums are taken in float64. A fact without a token behind
it is left out, so that no value is ever NaN.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from verl_llds.diagnostics.tally import CLASSES, facts, tally
from verl_llds.loss.displacement import ADVANTAGE_TOLERANCE


def likelihood_facts(
    *,
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    action_ids: Tensor,
) -> dict[str, float]:
    """Return the likelihood of a step's trajectories before and after an update, and how it moved.

    Args:
        old_log_prob: ``[B, T]``, log-probabilities before the update, of any floating type.
        log_prob: ``[B, T]``, log-probabilities after the update.
        advantages: ``[B, T]``, the same on all policy tokens of a row; ignored off-policy.
        response_mask: ``[B, T]``, true (or 1) on tokens the policy generated.
        action_ids: ``[B, T]`` int64 in 0..T: not 0 on policy tokens, equal within an action, rising in time.

    Returns:
        With ``{class}`` one of ``correct`` (advantage > 0), ``zero`` and ``incorrect``:

        * ``llds/trajectory_frac/{class}``: share of the trajectories that hold policy tokens;
        * ``llds/log_prob/{class}/old``: mean per policy token of the class;
        * ``llds/log_prob/{class}/new``: as ``old``;
        * ``llds/nonfinite_tokens``: policy tokens with a log-probability that is not finite, before or after;
          all means leave them out;
        * ``llds/displacement/{class}``: mean per policy token;
        * ``llds/displaced_token_frac/{class}``: share of policy tokens whose likelihood fell;
        * ``llds/displaced_action_frac/{class}``: share of actions whose summed likelihood fell;
        * ``llds/log_ratio/p99`` and ``llds/log_ratio/abs_max``: of ``abs(log_prob - old_log_prob)`` over all
          policy tokens; the percentile is that of nearest rank.

        Facts by class also come by place, such as ``llds/log_prob/correct/first_action/old`` and
        ``llds/displacement/correct/first_action``: ``first_action``; ``last_action``, of trajectories with at
        least two; ``middle_action``, all between.
    """
    policy = response_mask.bool()
    old = old_log_prob.detach().double()
    new = log_prob.detach().double()
    tokens = policy & old.isfinite() & new.isfinite()
    found = _class_shares(advantages, policy)
    found["llds/nonfinite_tokens"] = float((policy & ~tokens).sum())
    sums = tally(old_log_prob=old, log_prob=new, advantages=advantages, response_mask=policy, action_ids=action_ids)
    return found | facts(sums, "llds") | _log_ratio_tail((old - new)[tokens].abs())


def probe_facts(*, first_log_prob: Tensor, log_prob: Tensor, mask: Tensor, action_ids: Tensor) -> dict[str, float]:
    """Return the likelihood of the fixed probe set, and how it moved since it was first measured.

    Args:
        first_log_prob: ``[B, T]``, log-probabilities when the set was made.
        log_prob: ``[B, T]``, log-probabilities now.
        mask: ``[B, T]``, true (or 1) on tokens the policy generated.
        action_ids: ``[B, T]``, see `likelihood_facts`.

    Returns:
        * ``llds/probe/log_prob``: mean per policy token now;
        * ``llds/probe/displacement``: mean per policy token of ``first_log_prob - log_prob``;
        * ``llds/probe/displaced_action_frac``: share of actions whose summed likelihood fell;
        * ``llds/probe/nonfinite_tokens``: as in `likelihood_facts`.
    """
    policy = mask.bool()
    first, now = first_log_prob.detach().double(), log_prob.detach().double()
    sums = tally(
        old_log_prob=first,
        log_prob=now,
        advantages=torch.ones_like(now),
        response_mask=policy,
        action_ids=action_ids,
    )
    tokens, first_sum, now_sum, _, actions, displaced_actions = sums.sum(dim=(0, 1)).tolist()
    found = {"llds/probe/nonfinite_tokens": float(policy.sum() - tokens)}
    if tokens:
        found["llds/probe/log_prob"] = now_sum / tokens
        found["llds/probe/displacement"] = (first_sum - now_sum) / tokens
        found["llds/probe/displaced_action_frac"] = displaced_actions / actions
    return found


def observation_match_ratio(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the share of incorrect trajectories whose first search found what a correct sibling's found.

    A high share says that right and wrong trajectories begin alike, so that a penalty on the wrong ones also
    pushes the first action of the right ones down (arXiv 2512.04220 v2, figure 5: about 0.6 before collapse).

    Args:
        rows: one record per trajectory: ``uid`` of its group, ``correct`` (bool) and ``first_documents``, the ids
            of the passages its first search found, in any order; empty if it found none, which matches nothing.

    Returns:
        The share over the incorrect trajectories of groups that hold correct ones too; None if there is none.
    """
    found: dict[Any, set[frozenset[Any]]] = defaultdict(set)
    for row in rows:
        if row["correct"]:
            found[row["uid"]].add(frozenset(row["first_documents"]))
    matches = [
        bool(row["first_documents"]) and frozenset(row["first_documents"]) in found[row["uid"]]
        for row in rows
        if not row["correct"] and row["uid"] in found
    ]
    return sum(matches) / len(matches) if matches else None


def _class_shares(advantages: Tensor, policy: Tensor) -> dict[str, float]:
    first = policy.long().argmax(dim=1, keepdim=True)
    advantage = advantages.gather(1, first).squeeze(1)[policy.any(dim=1)]
    if not len(advantage):
        return {}
    counts = {
        "correct": int((advantage > ADVANTAGE_TOLERANCE).sum()),
        "incorrect": int((advantage < -ADVANTAGE_TOLERANCE).sum()),
    }
    counts["zero"] = len(advantage) - sum(counts.values())
    return {f"llds/trajectory_frac/{name}": counts[name] / len(advantage) for name in CLASSES}


def _log_ratio_tail(sizes: Tensor) -> dict[str, float]:
    if not len(sizes):
        return {}
    rank = math.ceil(0.99 * len(sizes))
    return {
        "llds/log_ratio/p99": float(sizes.kthvalue(rank).values),
        "llds/log_ratio/abs_max": float(sizes.max()),
    }
