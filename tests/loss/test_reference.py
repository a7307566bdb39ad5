"""`llds_penalty` against a slow version written from the paper's formulas: python floats and loops only."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_llds.loss.llds import count_preserved_tokens, llds_penalty
from verl_llds.settings import Gate, LLDSConfig


@dataclass
class Token:
    """One position of a row."""

    old: float
    new: float
    is_answer: bool


@dataclass
class Span:
    """One action of the policy, or one observation."""

    is_policy: bool
    tokens: list[Token]


@dataclass
class Row:
    """One response."""

    advantage: float
    spans: list[Span]


# Multiples of 1/16 add without rounding, so that sums of exactly 0 occur and mean it.
log_probs = st.integers(-64, 0).map(lambda n: n / 16)
tokens = st.builds(Token, old=log_probs, new=log_probs, is_answer=st.booleans())
spans = st.builds(Span, is_policy=st.booleans(), tokens=st.lists(tokens, min_size=1, max_size=4))
rows = st.builds(Row, advantage=st.sampled_from([1.5, 1e-9, 0.0, -0.0, -1e-9, -0.7]), spans=st.lists(spans, max_size=5))
batches = st.lists(rows, min_size=1, max_size=5)


def merge_runs(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in spans:
        if merged and merged[-1].is_policy == span.is_policy:
            merged[-1] = Span(span.is_policy, merged[-1].tokens + span.tokens)
        else:
            merged.append(span)
    return merged


def reference(
    batch: list[Row], gate: str, beta: float, num_preserved: int, dp_size: int
) -> tuple[dict[str, float], list[list[float]]]:
    """The four metrics, and the gradient by position, padding excluded."""
    loss = displacement = 0.0
    num_open = num_displaced = 0
    gradients: list[list[float]] = []
    for row in batch:
        gradients.append([])
        policy = [token for span in row.spans if span.is_policy for token in span.tokens]
        row_fell = sum(token.old - token.new for token in policy) > 0
        for span in row.spans:
            span_fell = sum(token.old - token.new for token in span.tokens) > 0
            for token in span.tokens:
                gradient = 0.0
                if span.is_policy and row.advantage >= 0:
                    is_open = {"token": True, "action": span_fell, "response": row_fell}[gate]
                    weight = beta if token.is_answer else 1.0
                    delta = token.old - token.new
                    num_open += is_open
                    num_displaced += delta > 0
                    displacement += delta
                    if is_open and delta > 0:
                        loss += weight * delta
                        gradient = -weight
                gradients[-1].append(gradient * dp_size / num_preserved if num_preserved else 0.0)
    values = {
        "actor/llds/penalty": loss,
        "actor/llds/open_token_frac": num_open,
        "actor/llds/displaced_token_frac": num_displaced,
        "actor/llds/displacement": displacement,
    }
    if num_preserved == 0:
        return dict.fromkeys(values, 0.0), gradients
    return {name: value * dp_size / num_preserved for name, value in values.items()}, gradients


@pytest.mark.parametrize("gate", [gate.value for gate in Gate])
@settings(max_examples=150, deadline=None)
@given(
    batch=batches,
    padding=st.integers(0, 3),
    beta=st.sampled_from([None, 0.0, 0.3, 1.0]),
    elsewhere=st.integers(0, 7),
    dp_size=st.integers(1, 4),
    explicit_ids=st.booleans(),
)
def test_agrees_with_the_formulas(
    gate: str,
    batch: list[Row],
    padding: int,
    beta: float | None,
    elsewhere: int,
    dp_size: int,
    explicit_ids: bool,
) -> None:
    width = padding + max(sum(len(span.tokens) for span in row.spans) for row in batch)
    # What lies at padding must not matter: an open gate with a large displacement, were it not masked.
    old = torch.full((len(batch), width), 50.0, dtype=torch.float64)
    new = torch.full_like(old, -50.0)
    advantages = torch.zeros_like(old)
    mask = torch.zeros(len(batch), width, dtype=torch.bool)
    answer = torch.zeros_like(mask)
    ids = torch.zeros(len(batch), width, dtype=torch.int64)
    num_preserved = elsewhere
    for i, row in enumerate(batch):
        k = 0
        for number, span in enumerate(row.spans, start=1):
            for token in span.tokens:
                old[i, k], new[i, k] = token.old, token.new
                mask[i, k], answer[i, k] = span.is_policy, token.is_answer
                if span.is_policy:
                    advantages[i, k], ids[i, k] = row.advantage, number
                    num_preserved += row.advantage >= 0
                k += 1
    assert int(count_preserved_tokens(advantages, mask)) + elsewhere == num_preserved
    new.requires_grad_()

    penalty, metrics = llds_penalty(
        old_log_prob=old,
        log_prob=new,
        advantages=advantages,
        response_mask=mask,
        num_preserved_tokens=num_preserved,
        settings=LLDSConfig(gate=gate, answer_weight=1.0 if beta is None else beta),
        action_ids=ids if explicit_ids else None,
        answer_mask=None if beta is None else answer,
        dp_size=dp_size,
    )
    penalty.backward()

    seen = batch if explicit_ids else [Row(row.advantage, merge_runs(row.spans)) for row in batch]
    expected, gradients = reference(seen, gate, 1.0 if beta is None else beta, num_preserved, dp_size)
    assert penalty.item() == pytest.approx(expected["actor/llds/penalty"], rel=1e-12, abs=1e-12)
    assert metrics == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert new.grad is not None
    for row_gradient, wanted in zip(new.grad.tolist(), gradients, strict=True):
        assert row_gradient == pytest.approx(wanted + [0.0] * (width - len(wanted)), rel=1e-12, abs=1e-12)
