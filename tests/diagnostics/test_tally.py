"""The tally and its facts against loops over tokens, and its sums whatever the split."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from verl_llds.diagnostics.tally import CLASSES, PLACES, QUANTITIES, facts, flatten, tally, unflatten

Batch = dict[str, Tensor]


@dataclass
class Token:
    """One token of the policy."""

    old: float
    new: float

    @property
    def is_finite(self) -> bool:
        """Whether the token counts."""
        return math.isfinite(self.old) and math.isfinite(self.new)


@dataclass
class Row:
    """One trajectory: its actions, with an observation after each."""

    advantage: float
    actions: list[list[Token]]
    observation: int


# Sixteenths add without rounding, so that an action's sum can be exactly 0.
log_probs = st.integers(-32, 0).map(lambda n: n / 16) | st.sampled_from([-math.inf, math.nan])
tokens = st.builds(Token, old=log_probs, new=log_probs)
rows = st.builds(
    Row,
    advantage=st.sampled_from([1.5, 2e-6, 1e-7, 0.0, -0.0, -1e-7, -2e-6, -0.7]),
    actions=st.lists(st.lists(tokens, min_size=1, max_size=4), max_size=4),
    observation=st.integers(0, 2),
)
batches = st.lists(rows, min_size=1, max_size=6)


def as_batch(batch: list[Row]) -> Batch:
    """Return padded tensors; what is off-policy is full of what must not count."""
    lengths = [sum(len(action) + row.observation for action in row.actions) for row in batch]
    shape = (len(batch), max(1, *lengths))
    made = {
        "old_log_prob": torch.full(shape, 3.0, dtype=torch.float64),
        "log_prob": torch.full(shape, -3.0, dtype=torch.float64),
        "advantages": torch.full(shape, 1.0, dtype=torch.float64),
        "response_mask": torch.zeros(shape, dtype=torch.int64),
        "action_ids": torch.zeros(shape, dtype=torch.int64),
    }
    for i, row in enumerate(batch):
        k = 0
        for number, action in enumerate(row.actions, start=1):
            for token in action:
                for name, value in (("old_log_prob", token.old), ("log_prob", token.new)):
                    made[name][i, k] = value
                made["advantages"][i, k] = row.advantage
                made["response_mask"][i, k] = 1
                made["action_ids"][i, k] = number
                k += 1
            k += row.observation
    return made


def reference(batch: list[Row]) -> dict[tuple[str, str], list[float]]:
    """The sums by class and place, in the order of `QUANTITIES`."""
    sums = {(kind, place): [0.0] * len(QUANTITIES) for kind in CLASSES for place in PLACES}
    for row in batch:
        kind = "correct" if row.advantage > 1e-6 else "incorrect" if row.advantage < -1e-6 else "zero"
        counted = [[token for token in action if token.is_finite] for action in row.actions]
        counted = [action for action in counted if action]
        for number, action in enumerate(counted):
            place = "first_action" if number == 0 else "middle_action"
            if 0 < number == len(counted) - 1:
                place = "last_action"
            found = sums[kind, place]
            for token in action:
                found[0] += 1
                found[1] += token.old
                found[2] += token.new
                found[3] += token.new < token.old
            found[4] += 1
            found[5] += sum(token.old - token.new for token in action) > 0
    return sums


def reference_facts(batch: list[Row]) -> dict[str, float]:
    sums = reference(batch)
    found = {}
    for kind in CLASSES:
        groups = {kind: list(PLACES), **{f"{kind}/{place}": [place] for place in PLACES}}
        for where, places in groups.items():
            tokens, old, new, fallen, actions, fallen_actions = (
                sum(sums[kind, place][quantity] for place in places) for quantity in range(len(QUANTITIES))
            )
            if tokens:
                found[f"llds/log_prob/{where}/old"] = old / tokens
                found[f"llds/log_prob/{where}/new"] = new / tokens
                found[f"llds/displacement/{where}"] = (old - new) / tokens
                found[f"llds/displaced_token_frac/{where}"] = fallen / tokens
                found[f"llds/displaced_action_frac/{where}"] = fallen_actions / actions
    return found


@settings(max_examples=200, deadline=None)
@given(batch=batches)
def test_agrees_with_loops(batch: list[Row]) -> None:
    sums = tally(**as_batch(batch))
    assert sums.dtype == torch.float64
    named = flatten(sums, "p")
    for (kind, place), values in reference(batch).items():
        for quantity, value in zip(QUANTITIES, values, strict=True):
            assert named[f"p/{kind}/{place}/{quantity}"] == pytest.approx(value, rel=1e-12, abs=1e-12)
    assert facts(sums, "llds") == pytest.approx(reference_facts(batch), rel=1e-12, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(batch=batches, cuts=st.lists(st.integers(0, 6), max_size=3), padding=st.integers(0, 3))
def test_sums_add_up_however_the_batch_is_cut_and_padded(batch: list[Row], cuts: list[int], padding: int) -> None:
    edges = sorted({0, len(batch), *(min(cut, len(batch)) for cut in cuts)})
    parts = [batch[start:stop] for start, stop in pairwise(edges)]
    wider = [{n: torch.nn.functional.pad(t, (0, padding)) for n, t in as_batch(part).items()} for part in parts]
    total = torch.stack([tally(**part) for part in wider]).sum(dim=0)
    torch.testing.assert_close(total, tally(**as_batch(batch)), rtol=1e-12, atol=1e-12)


def test_the_numbers_of_actions_need_not_be_dense_or_sorted() -> None:
    batch = as_batch([Row(1.0, [[Token(0.0, -1.0)], [Token(0.0, 0.0)], [Token(-1.0, 0.0)]], 0)] * 2)
    batch["action_ids"] = torch.tensor([[1, 2, 3], [1, 3, 2]])
    sums = unflatten(flatten(tally(**batch), "p"), "p")
    # In the second row the last action stands in the middle.
    tokens = sums[0, :, QUANTITIES.index("tokens")]
    risen = sums[0, :, QUANTITIES.index("log_prob")]
    assert tokens.tolist() == [2, 2, 2]
    assert risen.tolist() == [-2, 0, 0]
    assert sums[0, :, QUANTITIES.index("old_log_prob")].tolist() == [0, -1, -1]


def test_an_action_around_an_observation_counts_once() -> None:
    batch = as_batch([Row(1.0, [[Token(0.0, -1.0)], [Token(0.0, -1.0)]], 1)])
    batch["action_ids"] = torch.where(batch["response_mask"] > 0, 2, 0)
    found = dict(zip(QUANTITIES, tally(**batch)[0, 0].tolist(), strict=True))
    assert found["actions"] == found["displaced_actions"] == 1
    assert found["tokens"] == found["displaced_tokens"] == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_of_half_precision_are_taken_in_float64(dtype: torch.dtype) -> None:
    size = 5000
    old = torch.full((1, size), -0.25, dtype=dtype)
    new = torch.full((1, size), -0.375, dtype=dtype, requires_grad=True)
    ones = torch.ones(1, size)
    sums = tally(old_log_prob=old, log_prob=new, advantages=ones, response_mask=ones, action_ids=ones.long())
    assert not sums.requires_grad
    assert facts(sums, "llds")["llds/displacement/correct"] == 0.125
    assert sums[0, 0].tolist() == [size, -0.25 * size, -0.375 * size, size, 1, 1]


def test_nothing_is_rounded() -> None:
    rng = torch.Generator().manual_seed(0)
    old, new = -torch.rand(1, 999, generator=rng), -torch.rand(1, 999, generator=rng)
    old[0, :3], new[0, :3] = torch.tensor([1e8, 0.0, 0.0]), torch.tensor([0.0, -1e-3, 1e8])
    ones = torch.ones(1, 999)
    # In float32 the one small fall is lost beside the two large terms.
    ids = torch.where(torch.arange(999) < 3, 1, 2)[None]
    sums = tally(old_log_prob=old, log_prob=new, advantages=ones, response_mask=ones, action_ids=ids)
    found = dict(zip(QUANTITIES, sums[0, 0].tolist(), strict=True))
    assert (found["actions"], found["displaced_actions"]) == (1, 1)
    found = dict(zip(QUANTITIES, sums[0, 2].tolist(), strict=True))
    assert found["old_log_prob"] == pytest.approx(float(old[0, 3:].double().sum()), rel=1e-12)
    assert found["log_prob"] == pytest.approx(float(new[0, 3:].double().sum()), rel=1e-12)


def test_flatten_and_unflatten_are_inverse() -> None:
    sums = torch.rand(3, 3, len(QUANTITIES), dtype=torch.float64)
    named = flatten(sums, "actor/llds_tally")
    assert torch.equal(unflatten({**named, "actor/other": 1.0}, "actor/llds_tally"), sums)
    for name in named:
        # verl takes the least or greatest value of any metric with these letters in its name.
        assert "min" not in name
        assert "max" not in name
    for name in facts(sums, "actor/llds"):
        assert "min" not in name
        assert "max" not in name


def test_what_has_no_tokens_has_no_facts() -> None:
    sums = torch.zeros(3, 3, len(QUANTITIES), dtype=torch.float64)
    assert facts(sums, "llds") == {}
    sums[1, 2] = torch.tensor([2.0, -4.0, -6.0, 1.0, 1.0, 1.0])
    found = facts(sums, "llds")
    assert {name.split("/", 2)[2] for name in found} == {
        "zero", "zero/old", "zero/new", "zero/last_action", "zero/last_action/old", "zero/last_action/new"
    }  # fmt: skip
    assert found["llds/displacement/zero"] == found["llds/displacement/zero/last_action"] == 1.0
