"""What `WithLLDSContext` hands to the loss, and when it warns."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from loss_mini_batch import RESPONSES, Rows, correct_rows, make_data, make_rows, nested, num_preserved, padded
from tensordict import TensorDict
from torch import Tensor

from verl_llds.loss import policy_loss
from verl_llds.loss.micro_batch import VALID_SEARCHES_KEY, WithLLDSContext
from verl_llds.loss.policy_loss import LossContext
from verl_llds.settings import LLDSConfig

WIDTH = max(RESPONSES)


@pytest.fixture
def rows() -> Rows:
    return make_rows()


def nothing(**kwargs: Any) -> tuple[Tensor, dict[str, Any]]:
    """A loss function of verl's kind."""
    return torch.zeros(()), {}


def seen_context(data: TensorDict, settings: LLDSConfig | None = None) -> LossContext:
    seen = []

    def loss_fn(**kwargs: Any) -> tuple[Tensor, dict[str, Any]]:
        seen.append(policy_loss.current.get())
        return nothing()

    WithLLDSContext(loss_fn, settings or LLDSConfig(), warn=False)(model_output={}, data=data)
    (context,) = seen
    assert context is not None
    return context


def test_the_context_holds_what_verl_does_not_pass_on(rows: Rows) -> None:
    context = seen_context(make_data(rows[:2], rows, LLDSConfig(), dp_size=2))
    assert context.num_preserved_tokens == num_preserved(rows, LLDSConfig())
    assert context.num_policy_tokens == int(padded(rows, "response_mask").sum())
    assert context.dp_size == 2
    assert context.valid_searches == 1.5
    assert context.correct is None
    assert torch.equal(context.action_ids, padded(rows[:2], "action_ids"))
    assert torch.equal(context.answer_mask, padded(rows[:2], "answer_mask"))


def test_the_context_holds_the_correct_rows_if_the_settings_ask(rows: Rows) -> None:
    for reward, expected in ((1.0, [True, False, True, False]), (0.0, [True] * 4), (1.5, [False] * 4)):
        settings = LLDSConfig(preserve="correct", correct_reward=reward)
        correct = seen_context(make_data(rows, rows, settings), settings).correct
        assert correct is not None
        assert correct.tolist() == expected == correct_rows(rows, settings).tolist()


def test_a_batch_may_hold_less(rows: Rows) -> None:
    data = make_data(rows, rows, LLDSConfig(), without=["action_ids", "answer_mask", "rm_scores"])
    del data[VALID_SEARCHES_KEY]
    context = seen_context(data, LLDSConfig(preserve="correct"))
    assert (context.action_ids, context.answer_mask, context.correct, context.valid_searches) == (None,) * 4


@pytest.mark.parametrize("extra", [-1, 0, 5])
def test_our_fields_are_cut_or_padded_to_the_responses(rows: Rows, extra: int) -> None:
    data = make_data(rows, rows, LLDSConfig())
    # verl fills a batch with rows of one response token that keep our fields of a longer row.
    lengths = [max(1, response + extra) for response in RESPONSES]
    data["action_ids"] = nested([torch.full((length,), 3) for length in lengths])
    data["answer_mask"] = nested([torch.ones(length, dtype=torch.int64) for length in lengths])
    context = seen_context(data)
    for values, fill in ((context.action_ids, 3), (context.answer_mask, 1)):
        assert values is not None
        assert values.shape == (len(rows), WIDTH)
        for row, length in zip(values, lengths, strict=True):
            assert row.tolist() == [fill] * min(length, WIDTH) + [0] * max(0, WIDTH - length)


def test_fields_that_are_not_nested_are_taken_too(rows: Rows) -> None:
    data = make_data(rows, rows, LLDSConfig())
    data["action_ids"] = torch.ones(len(rows), 20, dtype=torch.int64)
    values = seen_context(data).action_ids
    assert values is not None
    assert values.shape == (len(rows), WIDTH)


def test_the_context_ends_with_the_call_even_if_it_fails(rows: Rows) -> None:
    def loss_fn(**kwargs: Any) -> tuple[Tensor, dict[str, Any]]:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        WithLLDSContext(loss_fn, LLDSConfig())(model_output={}, data=make_data(rows, rows, LLDSConfig()))
    assert policy_loss.current.get() is None


def warned(rows: Rows, *, without: Sequence[str], calls: int, **options: bool) -> list[str]:
    data = make_data(rows, rows, LLDSConfig(), without=without)
    with_context = WithLLDSContext(nothing, LLDSConfig(), **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(calls):
            with_context(model_output={}, data=data)
    return [str(warning.message) for warning in caught if "action_ids" in str(warning.message)]


def test_missing_action_ids_are_said_once_and_only_once(rows: Rows) -> None:
    (said,) = warned(rows, without=["action_ids"], calls=3)
    assert "contiguous runs of the response mask are taken as actions" in said


def test_nothing_is_said_where_there_is_no_cause(rows: Rows) -> None:
    assert warned(rows, without=[], calls=3) == []
    # One rank in a run speaks for all.
    assert warned(rows, without=["action_ids"], calls=3, warn=False) == []
