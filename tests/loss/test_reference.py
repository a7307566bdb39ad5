"""`llds_penalty` against a slow version written from the paper's formulas: python floats and loops only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_llds.loss.llds import count_preserved_tokens, llds_penalty
from verl_llds.settings import Gate, LLDSConfig, Normalizer, Preserve


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
    is_correct: bool
    spans: list[Span]

    def is_preserved(self, preserve: str) -> bool:
        """An advantage of less than a millionth is rounding of 0."""
        return {
            "nonnegative": self.advantage > -1e-6,
            "positive": self.advantage > 1e-6,
            "correct": self.is_correct,
        }[preserve]


METRICS = (
    "penalty",
    "loss",
    "effective_coef",
    "open_token_frac",
    "penalised_token_frac",
    "displaced_token_frac",
    "displacement",
)

# Multiples of 1/16 add without rounding, so that sums of exactly 0 occur and mean it.
log_probs = st.integers(-64, 0).map(lambda n: n / 16)
tokens = st.builds(Token, old=log_probs, new=log_probs, is_answer=st.booleans())
spans = st.builds(Span, is_policy=st.booleans(), tokens=st.lists(tokens, min_size=1, max_size=4))
rows = st.builds(
    Row,
    advantage=st.sampled_from([1.5, 1e-9, 0.0, -0.0, -1e-9, -0.7]),
    is_correct=st.booleans(),
    spans=st.lists(spans, max_size=5),
)
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
    batch: list[Row], config: LLDSConfig, beta: float, num_preserved: int, num_policy: int, dp_size: int
) -> tuple[dict[str, float], list[list[float]]]:
    """The metrics, and the gradient by position, padding excluded."""

    def fell(tokens: list[Token]) -> bool:
        counted = [token for token in tokens if config.answer_in_gate or not token.is_answer]
        return sum(token.old - token.new - config.tolerance for token in counted) > 0

    norm = num_preserved if config.normalizer == "preserved" else num_policy
    values = dict.fromkeys(METRICS, 0.0)
    gradients: list[list[float]] = []
    for row in batch:
        gradients.append([])
        row_fell = fell([token for span in row.spans if span.is_policy for token in span.tokens])
        for span in row.spans:
            span_fell = fell(span.tokens)
            for token in span.tokens:
                gradient = 0.0
                if span.is_policy and row.is_preserved(config.preserve):
                    is_open = {"token": True, "action": span_fell, "response": row_fell}[config.gate]
                    weight = beta if token.is_answer else 1.0
                    delta = token.old - token.new
                    pays = is_open and delta > config.tolerance
                    values["open_token_frac"] += is_open / num_preserved
                    values["penalised_token_frac"] += pays / num_preserved
                    values["displaced_token_frac"] += (delta > 0) / num_preserved
                    values["displacement"] += delta / num_preserved
                    values["effective_coef"] += config.coef / norm
                    if pays:
                        values["penalty"] += weight * (delta - config.tolerance) / norm
                        gradient = -weight / norm
                gradients[-1].append(gradient * dp_size)
    values["loss"] = config.coef * values["penalty"]
    return {f"actor/llds/{name}": value * dp_size for name, value in values.items()}, gradients


@pytest.mark.parametrize("gate", [gate.value for gate in Gate])
@settings(max_examples=150, deadline=None)
@given(
    batch=batches,
    padding=st.integers(0, 3),
    beta=st.sampled_from([None, 0.0, 0.3, 1.0]),
    elsewhere=st.integers(0, 7),
    dp_size=st.integers(1, 4),
    explicit_ids=st.booleans(),
    preserve=st.sampled_from([preserve.value for preserve in Preserve]),
    normalizer=st.sampled_from([normalizer.value for normalizer in Normalizer]),
    # 0.0703 has no exact float32, and no small multiple of it is one of 1/16.
    tolerance=st.sampled_from([0.0, 0.125, 1.0, 0.0703]),
    answer_in_gate=st.booleans(),
)
def test_agrees_with_the_formulas(
    gate: str,
    batch: list[Row],
    padding: int,
    beta: float | None,
    elsewhere: int,
    dp_size: int,
    explicit_ids: bool,
    preserve: str,
    normalizer: str,
    tolerance: float,
    answer_in_gate: bool,
) -> None:
    config = LLDSConfig(
        coef=0.3,
        gate=gate,
        preserve=preserve,
        answer_weight=1.0 if beta is None else beta,
        # Without a mask there is no answer to leave out.
        answer_in_gate=answer_in_gate or beta is None,
        tolerance=tolerance,
        normalizer=normalizer,
    )
    width = padding + max(sum(len(span.tokens) for span in row.spans) for row in batch)
    # What lies at padding must not matter: an open gate with a large displacement, were it not masked.
    old = torch.full((len(batch), width), 50.0, dtype=torch.float64)
    new = torch.full_like(old, -50.0)
    advantages = torch.zeros_like(old)
    mask = torch.zeros(len(batch), width, dtype=torch.bool)
    answer = torch.zeros_like(mask)
    ids = torch.zeros(len(batch), width, dtype=torch.int64)
    num_preserved = elsewhere
    num_policy = 2 * elsewhere
    for i, row in enumerate(batch):
        k = 0
        for number, span in enumerate(row.spans, start=1):
            for token in span.tokens:
                old[i, k], new[i, k] = token.old, token.new
                mask[i, k], answer[i, k] = span.is_policy, token.is_answer
                if span.is_policy:
                    advantages[i, k], ids[i, k] = row.advantage, number
                    num_policy += 1
                    num_preserved += row.is_preserved(preserve)
                k += 1
    correct = torch.tensor([row.is_correct for row in batch])
    counted = count_preserved_tokens(advantages, mask, preserve=Preserve(preserve), correct=correct)
    assert int(counted) + elsewhere == num_preserved
    new.requires_grad_()

    penalty, metrics = llds_penalty(
        old_log_prob=old,
        log_prob=new,
        advantages=advantages,
        response_mask=mask,
        num_preserved_tokens=num_preserved,
        num_policy_tokens=num_policy,
        settings=config,
        correct=correct,
        action_ids=ids if explicit_ids else None,
        answer_mask=None if beta is None else answer,
        dp_size=dp_size,
    )
    penalty.backward()

    seen = batch if explicit_ids else [replace(row, spans=merge_runs(row.spans)) for row in batch]
    beta = 1.0 if beta is None else beta
    expected, gradients = reference(seen, config, beta, num_preserved, num_policy, dp_size)
    assert penalty.item() == pytest.approx(expected["actor/llds/penalty"], rel=1e-12, abs=1e-12)
    assert metrics == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert new.grad is not None
    for row_gradient, wanted in zip(new.grad.tolist(), gradients, strict=True):
        assert row_gradient == pytest.approx(wanted + [0.0] * (width - len(wanted)), rel=1e-12, abs=1e-12)
