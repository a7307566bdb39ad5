"""Our metrics keep their meaning under verl's reduction: over micro-batches, ranks and mini-batches.

verl's worker collects a rank's metrics over its micro-batches, averages ``SUM`` metrics over ranks and then sums
them over micro-batches, or takes the greatest of ``MAX`` ones; the trainer averages the mini-batches of a step, or
takes the greatest where a name says ``max``.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from loss_mini_batch import Rows, evaluate, make_actor, make_rows, padded
from verl.utils.metric import Metric, reduce_metrics
from verl.utils.py_functional import append_to_dict

from verl_llds.diagnostics.tally import facts, tally, unflatten
from verl_llds.loss.micro_batch import TALLY_PREFIX

PROMPTS = (3, 1, 4, 2, 5, 1, 2, 3)
# A response of two tokens is two actions that touch.
RESPONSES = (7, 5, 9, 2, 12, 8, 3, 6)
ADVANTAGES = (1.1, 0.0, -0.8, 0.4, -0.5, 0.0, 2.0, 1.0)
REWARDS = (1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0)
# For each rank the sizes of its micro-batches, as many on every rank.
SPLITS = [
    [[8]],
    [[4, 4]],
    [[1, 2, 4, 1]],
    [[1] * 8],
    [[4], [4]],
    [[2, 2], [1, 3]],
    [[5, 1], [1, 1]],
    [[1, 1], [2, 1], [1, 1], [0, 1]],
    [[2], [2], [1], [3]],
]
CHOICES = [
    ("algorithm=grpo",),
    ("algorithm=grpo_llds",),
    ("algorithm=grpo_llds", "algorithm.llds.coef=0"),
    ("algorithm=grpo_llds", "algorithm.llds.preserve=correct", "algorithm.llds.normalizer=all"),
    ("algorithm=grpo_llds_ma", "algorithm.llds.gate=response", "algorithm.llds.tolerance=0.05"),
]


@pytest.fixture
def rows() -> Rows:
    return make_rows(PROMPTS, RESPONSES, ADVANTAGES, REWARDS, seed=3)


@pytest.fixture(params=CHOICES, ids=" ".join)
def actor(request: pytest.FixtureRequest) -> Any:
    return make_actor(*request.param)


def padding_row() -> Rows:
    """A row such as verl adds to fill a batch: one masked token, our fields those of another row."""
    (row,) = make_rows((1,), (1,), (1.0,), (0.0,))
    longer = torch.ones(6, dtype=torch.int64)
    nothing = torch.zeros(1, dtype=torch.int64)
    return [{**row, "response_mask": nothing, "action_ids": longer, "answer_mask": longer}]


def update(actor: Any, mini_batch: Rows, split: list[list[int]]) -> dict[str, Any]:
    """Return the metrics of one mini-batch as verl's worker makes them of its ranks' micro-batches."""
    ranks: list[dict[str, Metric]] = []
    start = 0
    for sizes in split:
        collected: dict[str, Metric] = {}
        for size in sizes:
            micro_batch = mini_batch[start : start + size] or padding_row()
            start += size
            _, _, metrics = evaluate(actor, micro_batch, mini_batch, dp_size=len(split), tally=True)
            append_to_dict(collected, {name: value for name, value in metrics.items() if isinstance(value, Metric)})
        ranks.append(collected)
    assert start == len(mini_batch)
    return {name: Metric.aggregate_dp([rank[name] for rank in ranks]) for name in ranks[0]}


def ours(metrics: dict[str, Any], prefix: str = "actor/llds/") -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if name.startswith(prefix)}


def expected_facts(rows: Rows) -> dict[str, float]:
    sums = tally(
        old_log_prob=padded(rows, "old_log_probs"),
        log_prob=padded(rows, "log_probs"),
        advantages=padded(rows, "advantages"),
        response_mask=padded(rows, "response_mask"),
        action_ids=padded(rows, "action_ids"),
    )
    return facts(sums, "llds")


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_a_mini_batch_however_it_is_split(actor: Any, rows: Rows, split: list[list[int]]) -> None:
    _, _, metrics = evaluate(actor, rows, tally=True)
    whole = {name: value.aggregate() for name, value in metrics.items() if isinstance(value, Metric)}
    reduced = update(actor, rows, split)
    assert len(ours(whole)) == 9
    assert ours(reduced) == pytest.approx(ours(whole), rel=1e-12, abs=1e-15)
    assert ours(reduced)["actor/llds/penalty"] > 0
    # The tally comes out divided by the number of ranks, all of it alike; its facts are ratios.
    sums = len(split) * unflatten(reduced, TALLY_PREFIX)
    torch.testing.assert_close(sums, unflatten(whole, TALLY_PREFIX), rtol=1e-12, atol=1e-14)
    assert facts(unflatten(reduced, TALLY_PREFIX), "llds") == pytest.approx(expected_facts(rows), rel=1e-12)


def test_the_whole_mini_batch_by_definition(rows: Rows) -> None:
    metrics = ours(update(make_actor("algorithm=grpo_llds"), rows, [[4, 4]]))
    mask = padded(rows, "response_mask").bool()
    fell = padded(rows, "old_log_probs") - padded(rows, "log_probs")
    held = fell[mask & (padded(rows, "advantages") >= 0)]
    assert metrics["actor/llds/displacement"] == pytest.approx(float(held.mean()), rel=1e-12)
    assert metrics["actor/llds/displaced_token_frac"] == pytest.approx(float((held > 0).double().mean()), rel=1e-12)
    assert metrics["actor/llds/loss"] == pytest.approx(0.2 * metrics["actor/llds/penalty"], rel=1e-12)
    assert metrics["actor/llds/effective_coef"] == pytest.approx(0.2, rel=1e-12)
    assert metrics["actor/llds/log_ratio_abs_max"] == pytest.approx(float(fell[mask].abs().max()), rel=1e-12)
    assert metrics["actor/llds/nonfinite_tokens"] == 0


def test_the_effective_coefficient_is_diluted_by_the_authors_normaliser(rows: Rows) -> None:
    metrics = ours(update(make_actor("algorithm=grpo_llds", "algorithm.llds.normalizer=all"), rows, [[2, 2], [1, 3]]))
    mask = padded(rows, "response_mask").bool()
    share = float((padded(rows, "advantages") >= 0)[mask].double().mean())
    assert 0 < share < 1
    assert metrics["actor/llds/effective_coef"] == pytest.approx(0.2 * share, rel=1e-12)


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_what_is_not_finite_is_counted_and_left_out(rows: Rows, split: list[list[int]]) -> None:
    for row, position in ((2, 0), (2, 8), (4, 11)):
        assert ADVANTAGES[row] < 0
        assert rows[row]["response_mask"][position] == 1
        rows[row]["log_probs"][position] = -math.inf
    # Off the mask nothing counts.
    assert rows[0]["response_mask"][3] == 0
    rows[0]["log_probs"][3] = math.nan
    reduced = update(make_actor("algorithm=grpo_llds"), rows, split)
    mask = padded(rows, "response_mask").bool()
    ratio = (padded(rows, "old_log_probs") - padded(rows, "log_probs"))[mask].abs()
    assert reduced["actor/llds/nonfinite_tokens"] == 3
    assert reduced["actor/llds/log_ratio_abs_max"] == pytest.approx(float(ratio[ratio.isfinite()].max()), rel=1e-12)
    assert all(math.isfinite(value) for value in ours(reduced).values())
    assert all(math.isfinite(value) for value in ours(reduced, TALLY_PREFIX).values())


# Mini-batches of unequal token counts, and the split of each.
STEPS = [
    [([0, 1, 2, 3], [[4]]), ([4, 5, 6, 7], [[4]])],
    [([0, 1, 2, 3], [[2, 2]]), ([4, 5, 6, 7], [[1, 3]])],
    [([3, 6], [[1], [1]]), ([4, 0], [[1], [1]]), ([2, 5], [[2], [0]]), ([1, 7], [[1], [1]])],
    [([0, 2, 4], [[1, 1], [1, 0]]), ([1, 3, 5], [[2, 1], [0, 0]]), ([7, 6], [[0, 0], [1, 1]])],
]


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_a_step_of_unequal_mini_batches(actor: Any, rows: Rows, step: list[tuple[list[int], list[list[int]]]]) -> None:
    collected: dict[str, list[float]] = {}
    wholes = []
    for numbers, split in step:
        mini_batch = [rows[number] for number in numbers]
        append_to_dict(collected, update(actor, mini_batch, split))
        _, _, metrics = evaluate(actor, mini_batch, tally=True)
        wholes.append(ours({name: metric.aggregate() for name, metric in metrics.items() if "llds/" in name}))
    reduced = reduce_metrics(collected)
    for name, value in ours(reduced).items():
        values = [whole[name] for whole in wholes]
        expected = max(values) if name == "actor/llds/log_ratio_abs_max" else sum(values) / len(values)
        assert value == pytest.approx(expected, rel=1e-12, abs=1e-15), name
    assert facts(unflatten(reduced, TALLY_PREFIX), "llds") == pytest.approx(expected_facts(rows), rel=1e-12)


def test_no_tally_unless_the_driver_asks(rows: Rows) -> None:
    _, _, metrics = evaluate(make_actor("algorithm=grpo"), rows)
    assert not any("llds" in name for name in metrics)
    _, _, metrics = evaluate(make_actor("algorithm=grpo_llds"), rows)
    assert len([name for name in metrics if "llds" in name]) == 7
