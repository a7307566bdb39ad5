from __future__ import annotations

import pytest
import torch

from verl_llds.loss.displacement import action_ids_from_mask, masked_displacement, open_tokens
from verl_llds.settings import Gate


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_actions_are_the_maximal_runs_of_the_mask(dtype: torch.dtype) -> None:
    mask = torch.tensor([[1, 1, 0, 1, 0, 0, 1], [0, 0, 1, 1, 1, 0, 0], [0] * 7, [1] * 7], dtype=dtype)
    expected = [[1, 1, 0, 2, 0, 0, 3], [0, 0, 1, 1, 1, 0, 0], [0] * 7, [1] * 7]
    ids = action_ids_from_mask(mask)
    assert ids.dtype == torch.int64
    assert ids.tolist() == expected


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_empty_shapes(shape: tuple[int, int]) -> None:
    mask = torch.zeros(shape, dtype=torch.bool)
    ids = action_ids_from_mask(mask)
    assert ids.shape == shape
    for gate in Gate:
        assert open_tokens(torch.zeros(shape), ids, mask, gate).shape == shape


def test_as_many_actions_as_the_width_allows() -> None:
    mask = torch.tensor([[True, False, True, False, True]])
    delta = torch.tensor([[1.0, 9.0, -1.0, 9.0, 1.0]])
    gate = open_tokens(delta, action_ids_from_mask(mask), mask, Gate.ACTION)
    assert gate.tolist() == [[1, 0, 0, 0, 1]]
    every_token_an_action = torch.arange(1, 6)[None]
    gate = open_tokens(delta, every_token_an_action, torch.ones_like(mask), Gate.ACTION)
    assert gate.tolist() == [[1, 1, 0, 1, 1]]


def test_displacement_is_positive_where_the_likelihood_fell() -> None:
    old = torch.tensor([[-1.0, -1.0, -1.0]])
    new = torch.tensor([[-3.0, -0.5, -9.0]])
    delta = masked_displacement(old, new, torch.tensor([[True, True, False]]))
    assert delta.tolist() == [[2.0, -0.5, 0.0]]


def test_no_gradient_flows_into_the_old_log_probs_or_through_the_gate() -> None:
    old = torch.full((1, 3), -1.0, requires_grad=True)
    new = torch.full((1, 3), -2.0, requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    delta = masked_displacement(old, new, mask)
    delta.sum().backward()
    assert old.grad is None
    assert new.grad is not None
    assert new.grad.tolist() == [[-1.0, -1.0, 0.0]]
    for gate in Gate:
        assert not open_tokens(delta, action_ids_from_mask(mask), mask, gate).requires_grad


def test_gate_sums_do_not_lose_small_terms() -> None:
    # In float32 the one small rise is lost beside the two large terms, and the sum is 0 instead of negative.
    delta = torch.tensor([[1e8, -1e-3, -1e8]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert open_tokens(-delta, action_ids_from_mask(mask), mask, Gate.ACTION).tolist() == [[1, 1, 1]]
    assert open_tokens(delta, action_ids_from_mask(mask), mask, Gate.ACTION).tolist() == [[0, 0, 0]]
