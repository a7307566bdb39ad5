from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st
from torch import Tensor

from verl_llds.diagnostics.tally import facts, tally
from verl_llds.loss.displacement import action_ids_from_mask
from verl_llds.loss.llds import count_preserved_tokens, llds_penalty
from verl_llds.settings import LLDSConfig, Preserve

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


DTYPES = [torch.float16, torch.bfloat16, torch.float32]
configs = st.builds(
    LLDSConfig,
    gate=st.sampled_from(GATES),
    preserve=st.sampled_from(["nonnegative", "positive", "correct"]),
    answer_weight=st.sampled_from([1.0, 0.3, 0.0, "paper", "authors"]),
    answer_in_gate=st.booleans(),
    tolerance=st.sampled_from([0.0, 0.01, 300.0]),
    normalizer=st.sampled_from(["preserved", "all"]),
)


@pytest.mark.parametrize("new_dtype", DTYPES)
@pytest.mark.parametrize("old_dtype", DTYPES)
@trials(max_examples=60, deadline=None)
@given(
    config=configs,
    shape=st.tuples(st.integers(0, 4), st.integers(0, 9)),
    mask_share=st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    reach=st.sampled_from([0.0, 1e-6, 1.0, 200.0]),
    seed=st.integers(0, 2**20),
)
def test_always_finite(
    new_dtype: torch.dtype,
    old_dtype: torch.dtype,
    config: LLDSConfig,
    shape: tuple[int, int],
    mask_share: float,
    reach: float,
    seed: int,
) -> None:
    """Log-ratios of either sign up to 200, any settings, any mask, an empty one and an empty batch included."""
    rng = torch.Generator().manual_seed(seed)
    old = -reach * torch.rand(shape, generator=rng)
    ratio = reach * (2 * torch.rand(shape, generator=rng) - 1)
    log_prob = (old + ratio).to(new_dtype).requires_grad_()
    mask = torch.rand(shape, generator=rng) < mask_share
    advantages = torch.randint(-1, 2, (shape[0], 1), generator=rng) * mask
    correct = torch.rand(shape[0], generator=rng) < 0.5
    preserve = Preserve(config.preserve)
    penalty, metrics = llds_penalty(
        old_log_prob=old.to(old_dtype),
        log_prob=log_prob,
        advantages=advantages.float(),
        response_mask=mask,
        num_preserved_tokens=int(count_preserved_tokens(advantages, mask, preserve=preserve, correct=correct)),
        num_policy_tokens=int(mask.sum()),
        settings=config,
        answer_mask=torch.rand(shape, generator=rng) < 0.3,
        correct=correct,
        valid_searches=4 * float(torch.rand((), generator=rng)),
    )
    penalty.backward()
    assert log_prob.grad is not None
    assert torch.isfinite(penalty)
    assert penalty >= 0
    assert torch.isfinite(log_prob.grad).all()
    assert log_prob.grad.dtype == new_dtype
    assert all(math.isfinite(value) for value in metrics.values())
    if shape[1]:
        sums = tally(
            old_log_prob=old.to(old_dtype),
            log_prob=log_prob,
            advantages=advantages.float(),
            response_mask=mask,
            action_ids=action_ids_from_mask(mask),
        )
        assert torch.isfinite(sums).all()
        assert all(math.isfinite(value) for value in facts(sums, "llds").values())


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
