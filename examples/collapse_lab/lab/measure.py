"""One step's metrics under the product's names, so that its figure and its phase detector read the lab's runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM

from lab.batch import Batch
from lab.policy import response_log_probs
from verl_llds.diagnostics.collect import likelihood_facts, probe_facts
from verl_llds.search.protocol import ActionKind
from verl_llds.search.trajectory import Trajectory


def episode_metrics(trajectories: Sequence[Trajectory], rewards: Tensor, batch: Batch) -> dict[str, float]:
    """Return what the step's episodes were like."""
    invalid = [sum(turn.kind == ActionKind.INVALID for turn in one.turns) for one in trajectories]
    return {
        "critic/score/mean": rewards.mean().item(),
        "search/answer_share": fmean(one.answer is not None for one in trajectories),
        "search/valid_searches": batch.num_searches.mean().item(),
        "search/invalid_actions": fmean(invalid),
        "response_length/mean": fmean(len(one.response_ids) for one in trajectories),
        "search/policy_tokens": batch.response_mask.sum(dim=1).float().mean().item(),
    }


def mean_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of every metric over the mini-batches of a step."""
    return {name: fmean(row[name] for row in rows) for name in rows[0]}


class Probe:
    """Correct trajectories of the policy before training, whose likelihood is followed."""

    SIZE = 64
    """Trajectories kept."""

    def __init__(self, model: Qwen2ForCausalLM, batch: Batch) -> None:
        self._batch = batch
        self._first = self._log_prob(model)

    def metrics(self, model: Qwen2ForCausalLM) -> dict[str, float]:
        """Return their likelihood under the policy as it is now."""
        return probe_facts(
            first_log_prob=self._first,
            log_prob=self._log_prob(model),
            mask=self._batch.response_mask,
            action_ids=self._batch.action_ids,
        )

    @torch.no_grad()
    def _log_prob(self, model: Qwen2ForCausalLM) -> Tensor:
        log_prob, _ = response_log_probs(model, self._batch.ids, self._batch.prompt_length)
        return log_prob


def update_metrics(batch: Batch, advantages: Tensor, old_log_prob: Tensor, log_prob: Tensor) -> dict[str, float]:
    """Return what the whole update did to the likelihood of the step's trajectories.

    Args:
        batch: the trajectories.
        advantages: ``[B]``.
        old_log_prob: ``[B, T]`` before the update.
        log_prob: ``[B, T]`` after it.
    """
    return likelihood_facts(
        old_log_prob=old_log_prob,
        log_prob=log_prob,
        advantages=advantages[:, None].expand_as(log_prob),
        response_mask=batch.response_mask,
        action_ids=batch.action_ids,
    )
