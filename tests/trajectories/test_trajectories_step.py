"""What the recording takes from a run: the loss's settings, and rows that ranks can share.

Queue and actor are real in tests/e2e.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_llds.compose import compose_run
from verl_llds.settings import LLDSConfig
from verl_llds.trajectories.settings import TrajectoriesConfig
from verl_llds.trajectories.step import StepTrajectories, _filled


@pytest.mark.parametrize(
    ("overrides", "expected", "is_applied"),
    [
        (["algorithm=grpo"], LLDSConfig(), False),
        (["algorithm=grpo_llds", "algorithm.llds.coef=0.3"], LLDSConfig(coef=0.3), True),
        (["algorithm=grpo_llds", "algorithm.llds.coef=0"], LLDSConfig(coef=0), False),
        (["algorithm=grpo_llds_ma"], LLDSConfig(answer_weight="paper"), True),
        (["algorithm=gspo_llds"], LLDSConfig(), True),
    ],
)
def test_the_penalty_is_that_of_the_run(overrides: list[str], expected: LLDSConfig, is_applied: bool) -> None:
    config = compose_run([*overrides, "data.train_batch_size=512", "search=search_r1"])
    trainer = SimpleNamespace(config=config, tokenizer=object())
    found = StepTrajectories(TrajectoriesConfig(), 0.5)._context(trainer)
    assert found.llds == expected
    assert found.is_applied == is_applied
    assert found.tokenizer is trainer.tokenizer
    assert found.correct_reward == 0.5


def test_nothing_is_asked_in_a_step_that_is_not_due() -> None:
    timing: dict[str, float] = {}
    trainer: Any = SimpleNamespace(global_steps=3)
    StepTrajectories(TrajectoriesConfig(every=10), 1.0).record(trainer, None, timing, is_measured=False)
    StepTrajectories(TrajectoriesConfig(every=0), 1.0).record(trainer, None, timing, is_measured=True)
    assert timing == {}


@given(ranks=st.integers(1, 8), per_rank=st.integers(1, 6), data=st.data())
def test_ranks_get_the_same_number_of_different_rows(ranks: int, per_rank: int, data: st.DataObject) -> None:
    all_keys = [f"k{number}" for number in range(ranks * per_rank)]
    batch = SimpleNamespace(keys=all_keys, tags=[{"key": key} for key in all_keys])
    keys = data.draw(st.lists(st.sampled_from(all_keys), min_size=1, unique=True))
    rows, tags = _filled(batch, keys, ranks)
    assert rows[: len(keys)] == keys
    assert len(rows) == len(set(rows))
    assert len(rows) % ranks == 0
    assert len(rows) < len(keys) + ranks
    assert [tag["key"] for tag in tags] == rows
