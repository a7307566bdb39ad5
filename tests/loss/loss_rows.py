"""Rows of displacements written by hand, and what `llds_penalty` makes of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from verl_llds.loss.llds import count_preserved_tokens, llds_penalty
from verl_llds.settings import LLDSConfig, Preserve

X = None
"""An observation token."""


def run(
    *rows: list[float | None],
    advantage: float | list[float] = 1.0,
    gate: str = "action",
    correct: list[bool] | None = None,
    **options: Any,
) -> tuple[float, list[list[float]]]:
    """Return N * penalty and N * its gradient by displacement, N being the number of preserved tokens.

    ``advantage`` is that of all rows, or one for each.
    """
    settings = options.setdefault("settings", LLDSConfig(gate=gate))
    mask = torch.tensor([[delta is not X for delta in row] for row in rows])
    delta = torch.tensor([[9.0 if delta is X else delta for delta in row] for row in rows]).double()
    by_row = advantage if isinstance(advantage, list) else [advantage] * len(rows)
    advantages = torch.tensor(by_row).double()[:, None] * mask
    is_correct = None if correct is None else torch.tensor(correct)
    old = torch.full_like(delta, -10.0)
    new: Tensor = (old - delta).requires_grad_()
    preserve = Preserve(settings.preserve)
    num_tokens = int(count_preserved_tokens(advantages, mask, preserve=preserve, correct=is_correct))
    penalty, _ = llds_penalty(
        old_log_prob=old,
        log_prob=new,
        advantages=advantages,
        response_mask=mask,
        num_preserved_tokens=num_tokens,
        correct=is_correct,
        **options,
    )
    penalty.backward()
    assert new.grad is not None
    gradient = -new.grad * num_tokens
    return penalty.item() * num_tokens, [[round(value, 9) for value in row] for row in gradient.tolist()]


def gated(row: list[float | None], answer: list[int], in_gate: bool, **fields: Any) -> tuple[float, list[float]]:
    """Return `run` of one row with an answer, the penalty to within rounding."""
    settings = LLDSConfig(answer_in_gate=in_gate, **fields)
    penalty, gradient = run(row, settings=settings, answer_mask=torch.tensor([answer]))
    return pytest.approx(penalty), gradient[0]
