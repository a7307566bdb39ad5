"""A step's trajectories as verl's queue holds them, made by hand."""

from __future__ import annotations

from typing import Any

import torch

from verl_llds.settings import LLDSConfig
from verl_llds.trajectories.rows import Context, StepBatch


class Letters:
    """A tokenizer whose ids are letters; it has no backend in Rust."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        assert not skip_special_tokens
        return "".join(chr(ord("a") + token) for token in token_ids)


CALL = {
    "kind": "call",
    "status": "result",
    "tool": "search",
    "content": "capital of Norway",
    "documents": ["7", "9"],
    "attempts": 1,
    "latency_s": 0.25,
    "num_tokens": 2,
    "num_observation_tokens": 3,
    "is_truncated": False,
}
ANSWER = {
    **CALL,
    "kind": "answer",
    "status": "answer",
    "tool": "",
    "content": "Oslo",
    "documents": [],
    "num_tokens": 2,
    "num_observation_tokens": 0,
}
FACTS = {"status": "answered", "error": "", "num_searches": 1, "turns": [CALL, ANSWER]}
FAILED = {"status": "retrieval_failed", "error": "down", "num_searches": 0, "turns": []}


def context(**llds: Any) -> Context:
    return Context(tokenizer=Letters(), llds=LLDSConfig(**llds), is_applied=True, correct_reward=1.0)


def batch(step: int = 10, *, is_measured: bool = True) -> StepBatch:
    """A right trajectory that searched and answered, and a wrong sibling that failed, so that its mask is empty."""
    columns: dict[str, list[Any]] = {
        "prompts": [torch.tensor([0, 1]), torch.tensor([0, 1])],
        "responses": [torch.arange(7), torch.arange(3)],
        "response_mask": [torch.tensor([1, 1, 0, 0, 0, 1, 1]), torch.zeros(3, dtype=torch.int64)],
        "action_ids": [torch.tensor([1, 1, 0, 0, 0, 2, 2]), torch.tensor([1, 1, 0])],
        "answer_mask": [torch.tensor([0, 0, 0, 0, 0, 0, 1]), torch.zeros(3, dtype=torch.int64)],
        "old_log_probs": [torch.tensor([-1.0, -1.0, 9.0, 9.0, 9.0, -2.0, -2.0]), torch.tensor([-0.5, -0.5, 9.0])],
        "advantages": [torch.full((7,), 0.5), torch.full((3,), -0.5)],
        "rm_scores": [torch.tensor([0, 0, 0, 0, 0, 0, 1.0]), torch.zeros(3)],
        "uid": ["u", "u"],
        "data_source": ["nq", "nq"],
        "extra_info": [{"index": 3}] * 2,
        "raw_prompt": [[{"role": "user", "content": "Which city?"}]] * 2,
        "reward_model": [{"ground_truth": {"target": ["Oslo", "Christiania"]}}] * 2,
    }
    if is_measured:
        # The first action fell as a whole, its second token alone; the second action rose, its first token fell.
        columns["log_probs"] = [torch.tensor([-0.9, -1.5, 3.0, 3.0, 3.0, -2.1, -1.0]), torch.full((3,), -1.0)]
    return StepBatch(
        step=step,
        num_trajectories=8,
        keys=["u_0_0", "u_1_0"],
        columns=columns,
        facts={
            "u_0_0": FACTS,
            "u_1_0": {"status": "retrieval_failed", "error": "down", "num_searches": 0, "turns": []},
        },
        valid_searches=1.0,
    )
