"""Turns out of text alone: closed where the server cut them, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from verl_llds.errors import EvaluationError
from verl_llds.evaluation.turn_readers import Retokenizer

STOP = ("</search>", "</look_up>", "</answer>")
SEARCHED, ANSWERED = "<search> capital of France ", "<answer> Paris "


@pytest.fixture(scope="module")
def reader(tokenizer: PreTrainedTokenizerFast) -> Retokenizer:
    return Retokenizer(tokenizer, tokenizer.eos_token_id, STOP)


def choice(text: str, reason: str | None = "stop", **values: Any) -> dict[str, Any]:
    return {"index": 0, "text": text, "finish_reason": reason, "logprobs": None, **values}


@pytest.mark.parametrize(
    ("text", "reason", "read"),
    [
        (SEARCHED, "stop", f"{SEARCHED}</search>"),
        (ANSWERED, "stop", f"{ANSWERED}</answer>"),
        ("<look_up> Paris ", "stop", "<look_up> Paris </look_up>"),
        # The tag opened last is the one that was closed.
        (f"I could <search>, but {ANSWERED}", "stop", f"I could <search>, but {ANSWERED}</answer>"),
        (f"<answer> is what I write later. {SEARCHED}", "stop", f"<answer> is what I write later. {SEARCHED}</search>"),
        # A server that keeps stop strings.
        (f"{SEARCHED}</search>", "stop", f"{SEARCHED}</search>"),
        # Cut at the limit of tokens, nothing was closed.
        (SEARCHED, "length", SEARCHED),
        # Ended without any tag: by the end-of-sequence token, even before the first character.
        ("I do not know.", "stop", "I do not know.<|im_end|>"),
        ("", "stop", "<|im_end|>"),
        ("I do not know.", "length", "I do not know."),
        # Half a surrogate pair, which JSON lets through.
        ("\ud83d", "length", "?"),
    ],
)
def test_a_turn_is_closed_where_the_server_cut_it(
    reader: Retokenizer, tokenizer: PreTrainedTokenizerFast, text: str, reason: str, read: str
) -> None:
    generation = reader.generation([choice(text, reason)], 100)
    assert tokenizer.decode(generation.token_ids) == read
    assert generation.log_probs is None
    assert not generation.is_aborted


@given(st.text(max_size=60), st.integers(1, 60))
def test_pieces_of_a_stream_are_the_whole_turn(tokenizer: PreTrainedTokenizerFast, text: str, size: int) -> None:
    reader = Retokenizer(tokenizer, tokenizer.eos_token_id, STOP)
    pieces = [choice(text[start : start + size], None) for start in range(0, len(text), size)]
    streamed = reader.generation([*pieces, choice("")], 1000)
    assert streamed == reader.generation([choice(text)], 1000)
    assert list(streamed.token_ids[: len(reader.ids(pieces))]) == reader.ids(pieces)


def test_a_turn_stays_within_its_limit(reader: Retokenizer) -> None:
    whole = reader.generation([choice(SEARCHED)], 1000).token_ids
    assert reader.generation([choice(SEARCHED)], 4).token_ids == whole[:4]


def test_an_aborted_turn_is_none(reader: Retokenizer) -> None:
    assert reader.generation([choice("", "abort")], 9).is_aborted


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0}, {"prompt_tokens": 2}])
def test_a_prompt_of_the_right_length_is_taken_and_one_that_is_not_counted(
    reader: Retokenizer, usage: dict[str, int] | None
) -> None:
    reader.check("http://h/v1", {"choices": [choice("a")], "usage": usage}, [1, 2])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"choices": [choice("a")], "usage": {"prompt_tokens": 3}}, "read another prompt than it was sent"),
        ({"choices": [{"message": {"content": "a"}}]}, "gives back no text"),
    ],
)
def test_a_server_of_something_else_is_refused(reader: Retokenizer, answer: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        reader.check("http://h/v1", answer, [1, 2])
