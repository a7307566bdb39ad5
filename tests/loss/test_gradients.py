from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from verl_llds.loss.displacement import action_ids_from_mask
from verl_llds.loss.llds import count_preserved_tokens, llds_penalty
from verl_llds.settings import LLDSConfig

Batch = dict[str, Tensor]
GATES = ["action", "response", "token"]


def gradient(batch: Batch, settings: LLDSConfig) -> Tensor:
    log_prob = batch["log_prob"].clone().requires_grad_()
    penalty, _ = llds_penalty(**{**batch, "log_prob": log_prob}, num_preserved_tokens=10, settings=settings)
    penalty.backward()
    assert log_prob.grad is not None
    return log_prob.grad


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("answer_weight", [1.0, 0.3, 0.0])
def test_finite_differences(ragged_batch: Callable[..., Batch], gate: str, answer_weight: float) -> None:
    batch = ragged_batch(num_rows=4)
    settings = LLDSConfig(gate=gate, answer_weight=answer_weight)
    num_tokens = int(count_preserved_tokens(batch["advantages"], batch["response_mask"]))

    def penalty(log_prob: Tensor) -> Tensor:
        return llds_penalty(**{**batch, "log_prob": log_prob}, num_preserved_tokens=num_tokens, settings=settings)[0]

    assert torch.autograd.gradcheck(penalty, batch["log_prob"].clone().requires_grad_())
    assert gradient(batch, settings).abs().sum() > 0


@pytest.mark.parametrize("gate", GATES)
def test_exactly_zero_where_nothing_is_preserved(ragged_batch: Callable[..., Batch], gate: str) -> None:
    batch = ragged_batch()
    grad = gradient(batch, LLDSConfig(gate=gate, answer_weight=0.0))
    assert grad.abs().sum() > 0
    assert torch.all(grad[~batch["response_mask"]] == 0)
    assert torch.all(grad[batch["advantages"] < 0] == 0)
    assert torch.all(grad[batch["answer_mask"]] == 0)
    assert torch.all(grad[batch["log_prob"] >= batch["old_log_prob"]] == 0)


def test_exactly_zero_on_closed_actions(ragged_batch: Callable[..., Batch]) -> None:
    batch = ragged_batch()
    grad = gradient(batch, LLDSConfig())
    delta = batch["old_log_prob"] - batch["log_prob"]
    ids = action_ids_from_mask(batch["response_mask"])
    num_closed = num_open = 0
    for row in range(len(ids)):
        for action in range(1, int(ids[row].max()) + 1):
            tokens = ids[row] == action
            if delta[row][tokens].sum() <= 0:
                assert torch.all(grad[row][tokens] == 0)
                num_closed += 1
            elif batch["advantages"][row].min() >= 0:
                assert torch.all(grad[row][tokens & (delta[row] > 0)] == -1 / 10)
                num_open += 1
    assert num_closed > 2
    assert num_open > 2


def test_old_log_probs_get_no_gradient(ragged_batch: Callable[..., Batch]) -> None:
    batch = ragged_batch()
    batch["old_log_prob"].requires_grad_()
    gradient(batch, LLDSConfig())
    assert batch["old_log_prob"].grad is None
