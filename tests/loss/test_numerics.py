from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from verl_llds.loss.llds import count_preserved_tokens, llds_penalty
from verl_llds.settings import LLDSConfig

Batch = dict[str, Tensor]
GATES = ["action", "response", "token"]


def evaluate(batch: Batch, gate: str = "action") -> tuple[Tensor, Tensor, dict[str, float]]:
    log_prob = batch["log_prob"].clone().requires_grad_()
    penalty, metrics = llds_penalty(
        **{**batch, "log_prob": log_prob},
        num_preserved_tokens=int(count_preserved_tokens(batch["advantages"], batch["response_mask"])),
        settings=LLDSConfig(gate=gate),
    )
    penalty.backward()
    assert log_prob.grad is not None
    return penalty.detach(), log_prob.grad, metrics


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("ratio", [200.0, -200.0])
def test_huge_log_ratios(ragged_batch: Callable[..., Batch], gate: str, dtype: torch.dtype, ratio: float) -> None:
    batch = ragged_batch()
    old, new = (-200.0, 0.0) if ratio > 0 else (0.0, -200.0)
    batch["old_log_prob"] = torch.full_like(batch["old_log_prob"], old, dtype=dtype)
    batch["log_prob"] = torch.full_like(batch["log_prob"], new, dtype=dtype)
    penalty, gradient, metrics = evaluate(batch, gate)
    assert penalty.item() == pytest.approx(0.0 if ratio > 0 else 200.0, rel=1e-6)
    assert torch.isfinite(gradient).all()
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nothing_leaks_from_where_nothing_is_preserved(
    ragged_batch: Callable[..., Batch], gate: str, bad: float
) -> None:
    batch = ragged_batch()
    clean = evaluate(batch, gate)
    outside = ~batch["response_mask"] | (batch["advantages"] < 0)
    for name in ("old_log_prob", "log_prob"):
        batch[name] = torch.where(outside, bad, batch[name])
    batch["advantages"] = torch.where(batch["response_mask"], batch["advantages"], bad)
    dirty = evaluate(batch, gate)
    assert torch.equal(dirty[0], clean[0])
    assert torch.equal(dirty[1], clean[1])
    assert dirty[2] == clean[2]


@pytest.mark.parametrize("gate", GATES)
def test_nan_on_a_preserved_token_is_not_hidden(ragged_batch: Callable[..., Batch], gate: str) -> None:
    # A penalty that swallowed it would let a broken forward pass train on.
    batch = ragged_batch()
    batch["log_prob"][0, 0] = math.nan
    assert evaluate(batch, gate)[0].isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_upcast(ragged_batch: Callable[..., Batch], dtype: torch.dtype) -> None:
    batch = ragged_batch(num_rows=64, width=200)
    half = {**batch, "old_log_prob": batch["old_log_prob"].to(dtype), "log_prob": batch["log_prob"].to(dtype)}
    rounded = {**half, "old_log_prob": half["old_log_prob"].double(), "log_prob": half["log_prob"].double()}
    penalty, gradient, _ = evaluate(half)
    expected, expected_gradient, _ = evaluate(rounded)
    assert penalty.dtype == torch.float32
    assert gradient.dtype == dtype
    # Once the inputs are rounded, only float32 rounding is left.
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-2, atol=0)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_empty_batches(shape: tuple[int, int]) -> None:
    empty = torch.zeros(shape)
    batch = {
        "old_log_prob": empty,
        "log_prob": empty,
        "advantages": empty,
        "response_mask": empty.bool(),
    }
    penalty, gradient, metrics = evaluate(batch)
    assert penalty.item() == 0.0
    assert gradient.shape == shape
    assert set(metrics.values()) == {0.0}
