from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad

from verl_llds.diagnostics.collect import likelihood_facts, observation_match_ratio, probe_facts

Batch = dict[str, Tensor]
CLASSES = ("correct", "zero", "incorrect")


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Rows of actions, some touching, with log-probabilities in steps of 1/64 so that sums are exact."""
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    num_rows, width = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    kind = draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]))
    shape = (num_rows, width)
    ids = (torch.rand(shape, generator=rng) < 0.4).long().cumsum(dim=1)
    mask = (ids > 0) & (torch.rand(shape, generator=rng) < 0.8)
    old, new = (-torch.randint(0, 640, shape, generator=rng).double() / 64 for _ in range(2))
    strange = torch.tensor([math.inf, -math.inf, math.nan], dtype=torch.float64)
    share = draw(st.sampled_from([0.0, 0.2]))
    for values in (old, new):
        chosen = strange[torch.randint(0, 3, shape, generator=rng)]
        values.copy_(torch.where(torch.rand(shape, generator=rng) < share, chosen, values))
    levels = torch.tensor([1.2, 1e-5, 5e-7, 0.0, -5e-7, -1e-5, -0.7])
    advantages = levels[torch.randint(0, len(levels), (num_rows, 1), generator=rng)].expand(shape)
    return {
        "old_log_prob": old.to(kind),
        "log_prob": new.to(kind),
        "advantages": advantages * mask,
        "response_mask": mask.to(draw(st.sampled_from([torch.bool, torch.int64, torch.float32]))),
        "action_ids": ids * mask,
    }


def slow_facts(batch: Batch) -> dict[str, float]:
    """Go token by token, in Python floats."""
    old, new, advantages = (batch[name].double().tolist() for name in ("old_log_prob", "log_prob", "advantages"))
    mask, ids = batch["response_mask"].bool().tolist(), batch["action_ids"].tolist()
    rows_by_class: dict[str, int] = defaultdict(int)
    tokens: dict[str, list[tuple[float, float]]] = defaultdict(list)
    actions: dict[str, list[float]] = defaultdict(list)
    sizes, num_strange = [], 0
    for row, flags in enumerate(mask):
        at = [token for token, flag in enumerate(flags) if flag]
        if not at:
            continue
        advantage = advantages[row][at[0]]
        kind = "zero" if abs(advantage) <= 1e-6 else "correct" if advantage > 0 else "incorrect"
        rows_by_class[kind] += 1
        good = [token for token in at if math.isfinite(old[row][token]) and math.isfinite(new[row][token])]
        num_strange += len(at) - len(good)
        spans: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for token in good:
            spans[ids[row][token]].append((old[row][token], new[row][token]))
            sizes.append(abs(new[row][token] - old[row][token]))
        for span, pairs in spans.items():
            place = "first" if span == min(spans) else "last" if span == max(spans) else "middle"
            for where in (kind, f"{kind}/{place}_action"):
                tokens[where] += pairs
                actions[where].append(sum(before - after for before, after in pairs))
    facts = {"llds/nonfinite_tokens": float(num_strange)}
    for kind in CLASSES:
        if rows_by_class:
            facts[f"llds/trajectory_frac/{kind}"] = rows_by_class[kind] / sum(rows_by_class.values())
    for where, pairs in tokens.items():
        facts[f"llds/log_prob/{where}/old"] = sum(before for before, _ in pairs) / len(pairs)
        facts[f"llds/log_prob/{where}/new"] = sum(after for _, after in pairs) / len(pairs)
        facts[f"llds/displacement/{where}"] = sum(before - after for before, after in pairs) / len(pairs)
        facts[f"llds/displaced_token_frac/{where}"] = sum(before > after for before, after in pairs) / len(pairs)
        facts[f"llds/displaced_action_frac/{where}"] = sum(total > 0 for total in actions[where]) / len(actions[where])
    if sizes:
        facts["llds/log_ratio/p99"] = sorted(sizes)[math.ceil(0.99 * len(sizes)) - 1]
        facts["llds/log_ratio/abs_max"] = max(sizes)
    return facts


@settings(max_examples=150, deadline=None)
@given(batch=batches())
def test_facts_equal_a_slow_count(batch: Batch) -> None:
    assert likelihood_facts(**batch) == pytest.approx(slow_facts(batch), rel=1e-12, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(batch=batches(), seed=st.integers(0, 100), extra=st.integers(1, 5))
def test_the_order_of_rows_and_padding_change_nothing(batch: Batch, seed: int, extra: int) -> None:
    order = torch.randperm(len(batch["response_mask"]), generator=torch.Generator().manual_seed(seed))
    facts = likelihood_facts(**batch)
    assert likelihood_facts(**{name: values[order] for name, values in batch.items()}) == pytest.approx(facts)
    # Padding rows and columns hold anything off the mask.
    padded = {
        name: pad(values, (0, extra, 0, 1), value=0 if name in ("response_mask", "action_ids") else math.nan)
        for name, values in batch.items()
    }
    assert likelihood_facts(**padded) == pytest.approx(facts)


@settings(max_examples=50, deadline=None)
@given(batch=batches())
def test_no_value_is_strange_and_every_share_lies_in_its_range(batch: Batch) -> None:
    for name, value in likelihood_facts(**batch).items():
        assert type(value) is float
        assert math.isfinite(value), name
        if "_frac/" in name:
            assert 0 <= value <= 1


def test_one_row_by_hand() -> None:
    facts = likelihood_facts(
        old_log_prob=torch.tensor([[-1.0, -1.0, 0.0, -2.0, 0.0, -3.0, -3.0]]),
        log_prob=torch.tensor([[-2.0, -0.5, 9.0, -1.0, 9.0, -3.5, -4.0]]),
        advantages=torch.full((1, 7), 0.8),
        response_mask=torch.tensor([[1, 1, 0, 1, 0, 1, 1]]),
        action_ids=torch.tensor([[1, 1, 0, 2, 0, 3, 3]]),
    )
    assert facts == {
        "llds/trajectory_frac/correct": 1.0,
        "llds/trajectory_frac/zero": 0.0,
        "llds/trajectory_frac/incorrect": 0.0,
        "llds/nonfinite_tokens": 0.0,
        "llds/log_prob/correct/old": -2.0,
        "llds/log_prob/correct/new": -2.2,
        "llds/displacement/correct": 0.2,
        "llds/displaced_token_frac/correct": 0.6,
        "llds/displaced_action_frac/correct": 2 / 3,
        "llds/log_prob/correct/first_action/old": -1.0,
        "llds/log_prob/correct/first_action/new": -1.25,
        "llds/displacement/correct/first_action": 0.25,
        "llds/displaced_token_frac/correct/first_action": 0.5,
        "llds/displaced_action_frac/correct/first_action": 1.0,
        "llds/log_prob/correct/middle_action/old": -2.0,
        "llds/log_prob/correct/middle_action/new": -1.0,
        "llds/displacement/correct/middle_action": -1.0,
        "llds/displaced_token_frac/correct/middle_action": 0.0,
        "llds/displaced_action_frac/correct/middle_action": 0.0,
        "llds/log_prob/correct/last_action/old": -3.0,
        "llds/log_prob/correct/last_action/new": -3.75,
        "llds/displacement/correct/last_action": 0.75,
        "llds/displaced_token_frac/correct/last_action": 1.0,
        "llds/displaced_action_frac/correct/last_action": 1.0,
        "llds/log_ratio/p99": 1.0,
        "llds/log_ratio/abs_max": 1.0,
    }


def test_a_step_without_policy_tokens_has_nothing_to_tell() -> None:
    empty = torch.zeros(2, 3)
    facts = likelihood_facts(
        old_log_prob=empty, log_prob=empty, advantages=empty, response_mask=empty, action_ids=empty.long()
    )
    assert facts == {"llds/nonfinite_tokens": 0.0}


def test_small_moves_are_not_lost_in_half_precision_sums() -> None:
    # 10,000 tokens of -1: in float16 their sum stops at -2048.
    ones = -torch.ones(1, 10_000, dtype=torch.float16)
    mask = torch.ones(1, 10_000)
    facts = likelihood_facts(
        old_log_prob=ones, log_prob=ones, advantages=mask, response_mask=mask, action_ids=mask.long()
    )
    assert facts["llds/log_prob/correct/old"] == -1.0
    assert facts["llds/displaced_token_frac/correct"] == 0.0


@settings(max_examples=100, deadline=None)
@given(batch=batches())
def test_probe_facts_equal_a_slow_count(batch: Batch) -> None:
    correct = {**batch, "advantages": torch.ones_like(batch["advantages"])}
    expected = slow_facts(correct)
    facts = probe_facts(
        first_log_prob=batch["old_log_prob"],
        log_prob=batch["log_prob"],
        mask=batch["response_mask"],
        action_ids=batch["action_ids"],
    )
    names = {
        "llds/probe/log_prob": "llds/log_prob/correct/new",
        "llds/probe/displacement": "llds/displacement/correct",
        "llds/probe/displaced_action_frac": "llds/displaced_action_frac/correct",
        "llds/probe/nonfinite_tokens": "llds/nonfinite_tokens",
    }
    assert facts == pytest.approx({name: expected[of] for name, of in names.items() if of in expected})


def test_a_probe_by_hand() -> None:
    facts = probe_facts(
        first_log_prob=torch.tensor([[-1.0, -1.0, 0.0, -1.0]]),
        log_prob=torch.tensor([[-1.5, -0.25, 0.0, -2.0]]),
        mask=torch.tensor([[1, 1, 0, 1]]),
        action_ids=torch.tensor([[1, 1, 0, 2]]),
    )
    assert facts == {
        "llds/probe/log_prob": -1.25,
        "llds/probe/displacement": 0.25,
        "llds/probe/displaced_action_frac": 0.5,
        "llds/probe/nonfinite_tokens": 0.0,
    }


def row(uid: str, correct: bool, *documents: str) -> dict[str, Any]:
    return {"uid": uid, "correct": correct, "first_documents": documents}


@pytest.mark.parametrize(
    ("rows", "ratio"),
    [
        ([], None),
        ([row("a", True, "1")], None),
        # No correct sibling: the group is not mixed.
        ([row("a", False, "1"), row("b", True, "1")], None),
        ([row("a", False, "1", "2"), row("a", True, "2", "1")], 1.0),
        ([row("a", False, "1"), row("a", True, "2", "1")], 0.0),
        # Of two siblings, one found the same.
        ([row("a", True, "3"), row("a", False, "1"), row("a", True, "1")], 1.0),
        # Nothing found matches nothing, not even nothing.
        ([row("a", False), row("a", True)], 0.0),
        (
            [
                row("a", True, "1"),
                row("a", False, "1"),
                row("a", False, "2"),
                row("b", True, "2"),
                row("b", False, "2"),
                row("c", False, "1"),
                row("a", False),
            ],
            0.5,
        ),
    ],
)
def test_observation_match_ratio(rows: list[dict[str, Any]], ratio: float | None) -> None:
    assert observation_match_ratio(rows) == ratio
    assert observation_match_ratio(rows[::-1]) == ratio
