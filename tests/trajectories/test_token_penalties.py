"""The penalty of each token against the loss that training uses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_llds.loss.displacement import action_ids_from_mask
from verl_llds.loss.llds import count_preserved_tokens, llds_penalty
from verl_llds.settings import LLDSConfig, Preserve
from verl_llds.trajectories.penalties import token_penalties

SETTINGS = st.builds(
    LLDSConfig,
    gate=st.sampled_from(["action", "response", "token"]),
    preserve=st.sampled_from(["nonnegative", "positive", "correct"]),
    answer_weight=st.sampled_from([1.0, 0.5, 0.0, "paper", "authors"]),
    answer_in_gate=st.booleans(),
    tolerance=st.sampled_from([0.0, 0.1]),
)


@settings(max_examples=150, deadline=None)
@given(SETTINGS, st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 12))
def test_the_sum_over_tokens_is_the_loss(llds: LLDSConfig, seed: int, rows: int, width: int) -> None:
    random = torch.Generator().manual_seed(seed)
    old, new = -torch.rand(2, rows, width, generator=random).double()
    mask = torch.randint(0, 2, (rows, width), generator=random)
    advantages = torch.randint(-1, 2, (rows, 1), generator=random).double().expand(rows, width)
    answers = torch.randint(0, 2, (rows, width), generator=random) * mask
    scores = torch.randint(0, 2, (rows,), generator=random).double()
    found = token_penalties(
        old_log_prob=old,
        log_prob=new,
        advantages=advantages,
        response_mask=mask,
        action_ids=action_ids_from_mask(mask),
        answer_mask=answers,
        scores=scores,
        settings=llds,
        valid_searches=1.5,
    )
    correct = scores >= llds.correct_reward
    count = int(count_preserved_tokens(advantages, mask, preserve=Preserve(llds.preserve), correct=correct))
    loss, metrics = llds_penalty(
        old_log_prob=old,
        log_prob=new,
        advantages=advantages,
        response_mask=mask,
        num_preserved_tokens=count,
        settings=llds,
        answer_mask=answers,
        correct=correct,
        valid_searches=1.5,
    )
    assert float(found.penalty.sum()) == pytest.approx(float(loss) * count, abs=1e-9)
    assert int(found.gate.sum()) == pytest.approx(metrics["actor/llds/open_token_frac"] * count)
    assert (found.penalty >= 0).all()
    assert not (found.penalty[~found.preserved] > 0).any()
