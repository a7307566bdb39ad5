"""How a mini-batch is cut, padded and ordered must not change the update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from verl.utils.metric import AggregationType, Metric

from verl_llds.loss.displacement import action_ids_from_mask
from verl_llds.loss.llds import count_preserved_tokens, llds_penalty
from verl_llds.settings import LLDSConfig, Preserve

Batch = dict[str, Tensor]
SETTINGS = {
    "action": LLDSConfig(answer_weight=0.5),
    "response": LLDSConfig(gate="response", answer_weight=0.5),
    "token": LLDSConfig(gate="token", answer_weight=0.5),
    "normalizer": LLDSConfig(normalizer="all"),
    "tolerance": LLDSConfig(tolerance=0.3, answer_weight="paper"),
    "answer": LLDSConfig(answer_in_gate=False, answer_weight=0.0),
    "positive": LLDSConfig(preserve="positive", answer_weight="authors"),
    "correct": LLDSConfig(preserve="correct", gate="response", normalizer="all"),
}
EXACT = {"rtol": 1e-13, "atol": 1e-15}


@pytest.fixture(params=list(SETTINGS))
def settings(request: pytest.FixtureRequest) -> LLDSConfig:
    return SETTINGS[request.param]


@dataclass(frozen=True)
class Counts:
    """Tokens of the whole mini-batch."""

    preserved: int
    policy: int


def count(batch: Batch, settings: LLDSConfig) -> Counts:
    where = (batch["advantages"], batch["response_mask"])
    preserved = count_preserved_tokens(*where, preserve=Preserve(settings.preserve), correct=batch["correct"])
    return Counts(preserved=int(preserved), policy=int(batch["response_mask"].sum()))


def evaluate(
    batch: Batch, settings: LLDSConfig, counts: Counts, dp_size: int = 1
) -> tuple[Tensor, Tensor, dict[str, float]]:
    log_prob = batch["log_prob"].clone().requires_grad_()
    penalty, metrics = llds_penalty(
        **{**batch, "log_prob": log_prob},
        num_preserved_tokens=counts.preserved,
        num_policy_tokens=counts.policy,
        settings=settings,
        valid_searches=1.5,
        dp_size=dp_size,
    )
    penalty.backward()
    assert log_prob.grad is not None
    return penalty.detach(), log_prob.grad, metrics


@pytest.fixture
def batch(ragged_batch: Callable[..., Batch]) -> Batch:
    """Sixteen rows, half of them correct, with a correct and a wrong one for every sign of advantage."""
    made = ragged_batch(num_rows=16)
    return {**made, "correct": torch.arange(16) % 4 < 2, "action_ids": action_ids_from_mask(made["response_mask"])}


def split(batch: Batch, sizes: list[int]) -> list[Batch]:
    chunks = {name: tensor.split(sizes) for name, tensor in batch.items()}
    return [{name: chunks[name][part] for name in chunks} for part in range(len(sizes))]


@pytest.mark.parametrize("sizes", [[16], [8, 8], [4] * 4, [2] * 8, [1] * 16, [1, 9, 4, 2], [15, 1]])
def test_micro_batches(batch: Batch, settings: LLDSConfig, sizes: list[int]) -> None:
    counts = count(batch, settings)
    whole, whole_gradient, whole_metrics = evaluate(batch, settings, counts)
    assert whole > 0
    shares = [evaluate(part, settings, counts) for part in split(batch, sizes)]
    torch.testing.assert_close(sum(share[0] for share in shares), whole, **EXACT)
    torch.testing.assert_close(torch.cat([share[1] for share in shares]), whole_gradient, **EXACT)
    for name, value in whole_metrics.items():
        assert sum(share[2][name] for share in shares) == pytest.approx(value, rel=1e-13)


@pytest.mark.parametrize("ranks", [[8, 8], [4] * 4, [14, 2], [2, 4, 2, 8]])
def test_data_parallel_ranks(batch: Batch, settings: LLDSConfig, ranks: list[int]) -> None:
    """The arithmetic of ranks; test_ranks.py runs them."""
    counts = count(batch, settings)
    _, whole_gradient, whole_metrics = evaluate(batch, settings, counts)
    shares = [
        [evaluate(part, settings, counts, len(ranks)) for part in split(rank, [size // 2] * 2)]
        for rank, size in zip(split(batch, ranks), ranks, strict=True)
    ]
    # Data-parallel training averages gradients, so that each rank's enters with 1 / len(ranks).
    averaged = torch.cat([gradient / len(ranks) for rank in shares for _, gradient, _ in rank])
    torch.testing.assert_close(averaged, whole_gradient, **EXACT)
    for name, value in whole_metrics.items():
        collected = [Metric(AggregationType.SUM) for _ in ranks]
        for metric, rank in zip(collected, shares, strict=True):
            metric.extend([share[2][name] for share in rank])
        assert Metric.aggregate_dp(collected) == pytest.approx(value, rel=1e-13)


@pytest.mark.parametrize("padding", [1, 40])
def test_padding(batch: Batch, settings: LLDSConfig, padding: int) -> None:
    counts = count(batch, settings)
    penalty, gradient, metrics = evaluate(batch, settings, counts)
    wider = {name: tensor if tensor.dim() == 1 else F.pad(tensor, (0, padding)) for name, tensor in batch.items()}
    padded = evaluate(wider, settings, counts)
    torch.testing.assert_close(padded[0], penalty, **EXACT)
    torch.testing.assert_close(padded[1], F.pad(gradient, (0, padding)), **EXACT)
    assert padded[2] == pytest.approx(metrics, rel=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_observations_anywhere(batch: Batch, settings: LLDSConfig, seed: int) -> None:
    """Masked columns full of nonsense, put between any tokens; actions are numbered explicitly."""
    counts = count(batch, settings)
    penalty, gradient, metrics = evaluate(batch, settings, counts)
    rng = torch.Generator().manual_seed(seed)
    width = batch["log_prob"].shape[1]
    columns = torch.randperm(2 * width, generator=rng)[:width].sort().values

    def spread(tensor: Tensor) -> Tensor:
        fill = 0 if tensor.dtype in (torch.bool, torch.int64) else 7.0
        wider = torch.full((len(tensor), 2 * width), fill, dtype=tensor.dtype)
        wider[:, columns] = tensor
        return wider

    wider = {name: tensor if tensor.dim() == 1 else spread(tensor) for name, tensor in batch.items()}
    spread_out = evaluate(wider, settings, counts)
    torch.testing.assert_close(spread_out[0], penalty, **EXACT)
    torch.testing.assert_close(spread_out[1][:, columns], gradient, **EXACT)
    assert spread_out[1].count_nonzero() == gradient.count_nonzero()
    assert spread_out[2] == pytest.approx(metrics, rel=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_row_order(batch: Batch, settings: LLDSConfig, seed: int) -> None:
    counts = count(batch, settings)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(seed))
    penalty, gradient, metrics = evaluate(batch, settings, counts)
    shuffled = evaluate({name: tensor[order] for name, tensor in batch.items()}, settings, counts)
    torch.testing.assert_close(shuffled[0], penalty, **EXACT)
    torch.testing.assert_close(shuffled[1], gradient[order], **EXACT)
    assert shuffled[2] == pytest.approx(metrics, rel=1e-13)


def test_metric_names_are_not_reduced_as_extremes(batch: Batch) -> None:
    # verl takes the least or greatest value of any metric with these letters in its name.
    _, _, metrics = evaluate(batch, LLDSConfig(), Counts(preserved=10, policy=20))
    assert metrics
    for name, value in metrics.items():
        assert name.startswith("actor/llds/")
        assert "min" not in name
        assert "max" not in name
        assert type(value) is float
