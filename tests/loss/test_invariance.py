"""How a mini-batch is cut, padded and ordered must not change the update."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from verl.utils.metric import AggregationType, Metric

from verl_llds.loss.llds import count_preserved_tokens, llds_penalty
from verl_llds.settings import LLDSConfig

Batch = dict[str, Tensor]
GATES = ["action", "response", "token"]
EXACT = {"rtol": 1e-13, "atol": 1e-15}


def evaluate(batch: Batch, num_tokens: int, gate: str, dp_size: int = 1) -> tuple[Tensor, Tensor, dict[str, float]]:
    log_prob = batch["log_prob"].clone().requires_grad_()
    penalty, metrics = llds_penalty(
        **{**batch, "log_prob": log_prob},
        num_preserved_tokens=num_tokens,
        settings=LLDSConfig(gate=gate, answer_weight=0.5),
        dp_size=dp_size,
    )
    penalty.backward()
    assert log_prob.grad is not None
    return penalty.detach(), log_prob.grad, metrics


def num_preserved(batch: Batch) -> int:
    return int(count_preserved_tokens(batch["advantages"], batch["response_mask"]))


def split(batch: Batch, parts: int) -> list[Batch]:
    chunks = {name: tensor.chunk(parts) for name, tensor in batch.items()}
    return [{name: chunks[name][part] for name in chunks} for part in range(parts)]


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_micro_batches(ragged_batch: Callable[..., Batch], gate: str, parts: int) -> None:
    batch = ragged_batch(num_rows=16)
    num_tokens = num_preserved(batch)
    whole, whole_gradient, whole_metrics = evaluate(batch, num_tokens, gate)
    shares = [evaluate(part, num_tokens, gate) for part in split(batch, parts)]
    torch.testing.assert_close(sum(share[0] for share in shares), whole, **EXACT)
    torch.testing.assert_close(torch.cat([share[1] for share in shares]), whole_gradient, **EXACT)
    for name, value in whole_metrics.items():
        assert sum(share[2][name] for share in shares) == pytest.approx(value, rel=1e-13)


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_data_parallel_ranks(ragged_batch: Callable[..., Batch], num_ranks: int) -> None:
    batch = ragged_batch(num_rows=16)
    num_tokens = num_preserved(batch)
    _, whole_gradient, whole_metrics = evaluate(batch, num_tokens, "action")
    ranks = [
        [evaluate(part, num_tokens, "action", num_ranks) for part in split(rank, 2)] for rank in split(batch, num_ranks)
    ]
    # Data-parallel training averages gradients, so that each rank's enters with 1 / num_ranks.
    averaged = torch.cat([gradient / num_ranks for rank in ranks for _, gradient, _ in rank])
    torch.testing.assert_close(averaged, whole_gradient, **EXACT)
    for name, value in whole_metrics.items():
        collected = [Metric(AggregationType.SUM) for _ in ranks]
        for metric, rank in zip(collected, ranks, strict=True):
            metric.extend([share[2][name] for share in rank])
        assert Metric.aggregate_dp(collected) == pytest.approx(value, rel=1e-13)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("padding", [1, 40])
def test_padding(ragged_batch: Callable[..., Batch], gate: str, padding: int) -> None:
    batch = ragged_batch()
    num_tokens = num_preserved(batch)
    penalty, gradient, metrics = evaluate(batch, num_tokens, gate)
    padded = evaluate({name: F.pad(t, (0, padding)) for name, t in batch.items()}, num_tokens, gate)
    torch.testing.assert_close(padded[0], penalty, **EXACT)
    torch.testing.assert_close(padded[1], F.pad(gradient, (0, padding)), **EXACT)
    assert padded[2] == pytest.approx(metrics, rel=1e-13)


@pytest.mark.parametrize("gate", GATES)
def test_row_order(ragged_batch: Callable[..., Batch], gate: str) -> None:
    batch = ragged_batch()
    num_tokens = num_preserved(batch)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    penalty, gradient, metrics = evaluate(batch, num_tokens, gate)
    shuffled = evaluate({name: tensor[order] for name, tensor in batch.items()}, num_tokens, gate)
    torch.testing.assert_close(shuffled[0], penalty, **EXACT)
    torch.testing.assert_close(shuffled[1], gradient[order], **EXACT)
    assert shuffled[2] == pytest.approx(metrics, rel=1e-13)


def test_metric_names_are_not_reduced_as_extremes(ragged_batch: Callable[..., Batch]) -> None:
    # verl takes the least or greatest value of any metric with these letters in its name.
    _, _, metrics = evaluate(ragged_batch(), 10, "action")
    assert metrics
    for name, value in metrics.items():
        assert name.startswith("actor/llds/")
        assert "min" not in name
        assert "max" not in name
        assert type(value) is float
