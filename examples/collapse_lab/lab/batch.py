"""A step's trajectories as tensors: ids, masks, scores and group advantages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lab.world import Fact
from verl_llds.reward.qa import exact_match
from verl_llds.search.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """B trajectories of one step; T is the longest response, padded on the right."""

    ids: Tensor
    """``[B, P + T]`` int64, prompts of P tokens and responses."""
    prompt_length: int
    """P."""
    response_mask: Tensor
    """``[B, T]`` bool, true on sampled tokens."""
    action_ids: Tensor
    """``[B, T]`` int64, number of the action from 1, 0 off it."""
    answer_mask: Tensor
    """``[B, T]`` bool, true on the final answer with its tags."""
    num_searches: Tensor
    """``[B]`` float, searches of each episode that were answered with passages."""

    def rows(self, index: Tensor) -> Batch:
        """Return the batch of some rows."""
        return Batch(
            ids=self.ids[index],
            prompt_length=self.prompt_length,
            response_mask=self.response_mask[index],
            action_ids=self.action_ids[index],
            answer_mask=self.answer_mask[index],
            num_searches=self.num_searches[index],
        )


def make_batch(trajectories: Sequence[Trajectory], pad_id: int) -> Batch:
    """Return trajectories as a batch; their prompts must be equally long."""
    (prompt_length,) = {len(one.prompt_ids) for one in trajectories}
    width = max(len(one.response_ids) for one in trajectories)

    def padded(rows: Sequence[Sequence[int]], fill: int = 0) -> Tensor:
        return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])

    prompts = torch.tensor([one.prompt_ids for one in trajectories])
    return Batch(
        ids=torch.cat([prompts, padded([one.response_ids for one in trajectories], pad_id)], dim=1),
        prompt_length=prompt_length,
        response_mask=padded([one.response_mask for one in trajectories]).bool(),
        action_ids=padded([one.action_ids for one in trajectories]),
        answer_mask=padded([one.answer_mask for one in trajectories]).bool(),
        num_searches=torch.tensor([float(one.num_searches) for one in trajectories]),
    )


def score(trajectories: Sequence[Trajectory], facts: Sequence[Fact]) -> Tensor:
    """Return the exact match of every trajectory's answer, ``[B]``."""
    pairs = zip(trajectories, facts, strict=True)
    return torch.tensor([exact_match(one.answer, fact.value) for one, fact in pairs])


def group_advantages(rewards: Tensor, group_size: int) -> Tensor:
    """Return GRPO's advantages, ``[B]``: centred and divided by the sample deviation + 1e-6 within each group.

    Args:
        rewards: ``[B]``, the rows of a group next to each other.
        group_size: rows of a group, at least 2.
    """
    groups = rewards.view(-1, group_size)
    centred = groups - groups.mean(dim=1, keepdim=True)
    return (centred / (groups.std(dim=1, keepdim=True) + 1e-6)).flatten()
