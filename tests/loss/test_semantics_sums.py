"""Tolerance and normaliser, case by case: the numbered list of test_semantics.py, continued.

26. Displacements within the tolerance open no gate and have no gradient.
27. A gate opens on the mean displacement of its span, not on the sum.
28. A token pays what its displacement exceeds the tolerance by; its gradient stays 1.
29. A token within the tolerance pays nothing in an open gate.
30. ``answer_in_gate=false``: the mean is that of the tokens outside the answer.
31. ``normalizer=preserved``: responses outside the preserving set change nothing.
32. ``normalizer=all``: they dilute the penalty of the others.
33. ``normalizer=all`` is the loss of the authors' code, for one micro-batch.
34. ``normalizer=all`` with the number of policy tokens unknown is an error.
35. The settings that are not asked for change nothing: rewards, V and a token count may be there or not.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from loss_rows import X, gated, run
from torch import Tensor

from verl_llds.errors import ConfigError
from verl_llds.loss.llds import count_preserved_tokens, llds_penalty
from verl_llds.settings import LLDSConfig

Batch = dict[str, Tensor]
GATES = ["action", "response", "token"]


@pytest.mark.parametrize("gate", GATES)
def test_26_noise_within_the_tolerance(gate: str) -> None:
    row = [0.25, 0.1, X, 0.25, -0.1]
    assert run(row, settings=LLDSConfig(gate=gate, tolerance=0.25)) == (0.0, [[0, 0, 0, 0, 0]])
    assert run(row, settings=LLDSConfig(gate=gate))[0] > 0


@pytest.mark.parametrize("gate", ["action", "response"])
def test_27_gate_opens_on_the_mean(gate: str) -> None:
    settings = LLDSConfig(gate=gate, tolerance=0.5)
    # The sum is well above the tolerance; the mean is exactly it, and then just above.
    assert run([1.5, 0.25, -0.25], settings=settings) == (0.0, [[0, 0, 0]])
    assert run([1.5, 0.25, -0.1875], settings=settings) == (pytest.approx(1.0), [[1, 0, 0]])


@pytest.mark.parametrize("gate", GATES)
def test_28_the_hinge_shrinks(gate: str) -> None:
    settings = LLDSConfig(gate=gate, tolerance=0.5)
    assert run([2.0, 1.5, X, 0.75], settings=settings) == (pytest.approx(2.75), [[1, 1, 0, 1]])


@pytest.mark.parametrize("gate", GATES)
def test_29_token_within_the_tolerance(gate: str) -> None:
    settings = LLDSConfig(gate=gate, tolerance=0.5)
    assert run([2.0, 0.5, 0.375], settings=settings) == (pytest.approx(1.5), [[1, 0, 0]])


def test_30_mean_outside_the_answer() -> None:
    # The two ordinary tokens have a mean of 0.75, all four one of 0.375.
    row, answer = [1.0, 0.5, 0.0, 0.0], [0, 0, 1, 1]
    assert gated(row, answer, True, tolerance=0.5) == (0.0, [0, 0, 0, 0])
    assert gated(row, answer, False, tolerance=0.5) == (0.5, [1, 0, 0, 0])
    # And the other way round: 0.25 and 0.875.
    row = [0.5, 0.0, 1.5, 1.5]
    assert gated(row, answer, True, tolerance=0.5) == (2.0, [0, 0, 1, 1])
    assert gated(row, answer, False, tolerance=0.5) == (0.0, [0, 0, 0, 0])


def normalised(normalizer: str, rows: list[list[float | None]], advantages: list[float]) -> float:
    """Return the penalty itself, not multiplied by the number of preserved tokens."""
    num_policy = sum(delta is not X for row in rows for delta in row)
    num_preserved = sum(
        delta is not X for row, advantage in zip(rows, advantages, strict=True) for delta in row if advantage >= 0
    )
    settings = LLDSConfig(normalizer=normalizer)
    penalty, _ = run(*rows, advantage=advantages, settings=settings, num_policy_tokens=num_policy)
    return penalty / num_preserved


def test_31_normalizer_preserved() -> None:
    row = [1.0, 2.0, X]
    assert normalised("preserved", [row], [1.0]) == pytest.approx(1.5)
    assert normalised("preserved", [row, [5.0, 5.0, 5.0]], [1.0, -1.0]) == pytest.approx(1.5)
    assert normalised("preserved", [row, [0.0, 0.0, 0.0]], [1.0, 0.0]) == pytest.approx(0.6)


def test_32_normalizer_all() -> None:
    row = [1.0, 2.0, X]
    assert normalised("all", [row], [1.0]) == pytest.approx(1.5)
    assert normalised("all", [row, [5.0, 5.0, 5.0]], [1.0, -1.0]) == pytest.approx(0.6)
    assert normalised("all", [row, [0.0, 0.0, 0.0]], [1.0, 0.0]) == pytest.approx(0.6)


def authors_loss(batch: Batch, gate: str, coef: float, answer_coef: float) -> float:
    """The authors' term, coefficient included, from its formulas: runs of the preserved mask, mean over all tokens."""
    total = 0.0
    for old, new, advantages, mask, answer in zip(
        *(batch[name].tolist() for name in ("old_log_prob", "log_prob", "advantages", "response_mask", "answer_mask")),
        strict=True,
    ):
        kept = [bool(m) and a >= 0 for m, a in zip(mask, advantages, strict=True)]
        decrease = [o - n for o, n in zip(old, new, strict=True)]
        row_open = sum(d for d, k in zip(decrease, kept, strict=True) if k) > 0
        start = 0
        while start < len(kept):
            stop = start
            while stop < len(kept) and kept[stop] == kept[start]:
                stop += 1
            is_open = sum(decrease[start:stop]) > 0 if gate == "action" else row_open
            if kept[start] and is_open:
                for k in range(start, stop):
                    total += max(0.0, decrease[k]) * (min(answer_coef, coef) if answer[k] else coef)
            start = stop
    return total / float(batch["response_mask"].sum())


@pytest.mark.parametrize("gate", ["action", "response"])
@pytest.mark.parametrize("searches", [0.0, 1.0, 1.4, 2.0, 3.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_33_the_authors_loss(ragged_batch: Callable[..., Batch], gate: str, searches: float, seed: int) -> None:
    batch = ragged_batch(num_rows=12, seed=seed)
    coef = 0.2
    settings = LLDSConfig(coef=coef, gate=gate, normalizer="all", answer_weight="authors")
    penalty, metrics = llds_penalty(
        **batch,
        num_preserved_tokens=int(count_preserved_tokens(batch["advantages"], batch["response_mask"])),
        num_policy_tokens=int(batch["response_mask"].sum()),
        settings=settings,
        valid_searches=searches,
    )
    expected = authors_loss(batch, gate, coef, answer_coef=coef * max(searches - 1, 0.0))
    assert expected > 0
    assert coef * penalty.item() == pytest.approx(expected, rel=1e-12)
    assert metrics["actor/llds/loss"] == pytest.approx(expected, rel=1e-12)


def test_34_normalizer_all_without_the_number() -> None:
    with pytest.raises(ConfigError, match=r"llds\.normalizer=all divides by .* policy tokens.* normalizer=preserved"):
        run([1.0], settings=LLDSConfig(normalizer="all"))


def test_35_what_is_not_asked_for() -> None:
    rows = [[1.0, -0.5], [2.0, 1.0]]
    answer = torch.tensor([[0, 1], [0, 1]])
    plain = run(*rows, advantage=[1.0, 0.0])
    given = run(
        *rows,
        advantage=[1.0, 0.0],
        correct=[False, True],
        valid_searches=0.0,
        num_policy_tokens=999,
        answer_mask=answer,
    )
    assert given == plain
