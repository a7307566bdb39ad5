"""The gradient by log-probability: finite differences for every combination of settings, and where it is exactly 0."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from verl_llds.loss.displacement import action_ids_from_mask
from verl_llds.loss.llds import count_preserved_tokens, llds_penalty
from verl_llds.settings import LLDSConfig, Preserve

Batch = dict[str, Tensor]
GATES = ["action", "response", "token"]
# With V = 1.25 the adaptive weights are 0.625 and 0.25.
ANSWERS: list[dict[str, Any]] = [
    {},
    {"answer_weight": 0.3},
    {"answer_weight": 0.0},
    {"answer_weight": "paper"},
    {"answer_weight": "authors"},
    {"answer_in_gate": False},
    {"answer_weight": 0.0, "answer_in_gate": False},
]
COMBINATIONS = list(product(GATES, ["preserved", "all"], ANSWERS, [0.0, 0.05, 0.2]))


def combined(gate: str, normalizer: str, answer: dict[str, Any], tolerance: float, **fields: Any) -> LLDSConfig:
    return LLDSConfig(gate=gate, normalizer=normalizer, tolerance=tolerance, **answer, **fields)


def penalty_of(batch: Batch, settings: LLDSConfig) -> Callable[[Tensor], Tensor]:
    """Return the penalty as a function of the log-probabilities; every third row is correct."""
    correct = torch.arange(len(batch["advantages"])) % 3 == 1
    where = (batch["advantages"], batch["response_mask"])
    num_preserved = int(count_preserved_tokens(*where, preserve=Preserve(settings.preserve), correct=correct))

    def penalty(log_prob: Tensor) -> Tensor:
        return llds_penalty(
            **{**batch, "log_prob": log_prob},
            num_preserved_tokens=num_preserved,
            num_policy_tokens=int(batch["response_mask"].sum()),
            settings=settings,
            correct=correct,
            valid_searches=1.25,
        )[0]

    return penalty


def gradient(batch: Batch, settings: LLDSConfig) -> Tensor:
    log_prob = batch["log_prob"].clone().requires_grad_()
    penalty_of(batch, settings)(log_prob).backward()
    assert log_prob.grad is not None
    return log_prob.grad


@pytest.mark.parametrize(("gate", "normalizer", "answer", "tolerance"), COMBINATIONS)
def test_finite_differences(
    ragged_batch: Callable[..., Batch], gate: str, normalizer: str, answer: dict[str, Any], tolerance: float
) -> None:
    batch = ragged_batch(num_rows=3, width=20, seed=4)
    delta = (batch["old_log_prob"] - batch["log_prob"])[batch["response_mask"]]
    assert (delta - tolerance).abs().min() > 1e-4, "too near a kink for finite differences"
    settings = combined(gate, normalizer, answer, tolerance)
    assert torch.autograd.gradcheck(penalty_of(batch, settings), batch["log_prob"].clone().requires_grad_())
    assert gradient(batch, settings).abs().sum() > 0


@pytest.mark.parametrize("preserve", ["nonnegative", "positive", "correct"])
@pytest.mark.parametrize("gate", GATES)
def test_finite_differences_by_preserving_set(ragged_batch: Callable[..., Batch], gate: str, preserve: str) -> None:
    batch = ragged_batch(num_rows=3, width=20, seed=4)
    settings = LLDSConfig(gate=gate, preserve=preserve)
    assert torch.autograd.gradcheck(penalty_of(batch, settings), batch["log_prob"].clone().requires_grad_())
    assert gradient(batch, settings).abs().sum() > 0


@pytest.mark.parametrize(("gate", "normalizer", "answer", "tolerance"), COMBINATIONS)
def test_exactly_zero_where_nothing_is_to_be_held(
    ragged_batch: Callable[..., Batch], gate: str, normalizer: str, answer: dict[str, Any], tolerance: float
) -> None:
    batch = ragged_batch(num_rows=12, seed=3)
    grad = gradient(batch, combined(gate, normalizer, answer, tolerance))
    delta = batch["old_log_prob"] - batch["log_prob"]
    assert grad.abs().sum() > 0
    assert torch.all(grad <= 0)
    assert torch.all(grad[~batch["response_mask"]] == 0)
    assert torch.all(grad[batch["advantages"] < 0] == 0)
    assert torch.all(grad[delta <= tolerance] == 0)
    on_answer = grad[batch["answer_mask"]]
    assert torch.all(on_answer == 0) if answer.get("answer_weight") == 0 else on_answer.abs().sum() > 0


@pytest.mark.parametrize("in_gate", [True, False])
@pytest.mark.parametrize("tolerance", [0.0, 0.2])
def test_exactly_zero_on_closed_actions(ragged_batch: Callable[..., Batch], in_gate: bool, tolerance: float) -> None:
    batch = ragged_batch(num_rows=12, seed=3)
    grad = gradient(batch, LLDSConfig(answer_in_gate=in_gate, tolerance=tolerance))
    num_tokens = int(count_preserved_tokens(batch["advantages"], batch["response_mask"]))
    delta = batch["old_log_prob"] - batch["log_prob"]
    counted = batch["response_mask"] if in_gate else batch["response_mask"] & ~batch["answer_mask"]
    ids = action_ids_from_mask(batch["response_mask"])
    num_closed = num_open = 0
    for row in range(len(ids)):
        if batch["advantages"][row].min() < 0:
            continue
        for action in range(1, int(ids[row].max()) + 1):
            tokens = ids[row] == action
            if delta[row][tokens & counted[row]].mean() > tolerance:
                assert torch.all(grad[row][tokens & (delta[row] > tolerance)] == -1 / num_tokens)
                num_open += 1
            else:
                assert torch.all(grad[row][tokens] == 0)
                num_closed += 1
    assert num_closed > 2
    assert num_open > 2


@pytest.mark.parametrize("preserve", ["nonnegative", "positive", "correct"])
def test_exactly_zero_outside_the_preserving_set(ragged_batch: Callable[..., Batch], preserve: str) -> None:
    batch = ragged_batch(num_rows=9)
    by_row = gradient(batch, LLDSConfig(gate="token", preserve=preserve)).abs().sum(dim=1)
    # Rows have A > 0, A = 0 and A < 0 in turn, and the second of three is correct.
    held = {"nonnegative": [True, True, False], "positive": [True, False, False], "correct": [False, True, False]}
    assert (by_row > 0).tolist() == held[preserve] * 3


def test_old_log_probs_get_no_gradient(ragged_batch: Callable[..., Batch]) -> None:
    batch = ragged_batch()
    batch["old_log_prob"].requires_grad_()
    gradient(batch, LLDSConfig())
    assert batch["old_log_prob"].grad is None
