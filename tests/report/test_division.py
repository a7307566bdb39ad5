"""Responses that are known as text are divided where policy and environment take turns."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from verl_llds.report.division import divide
from verl_llds.report.dumps import from_dump_row
from verl_llds.report.trajectories import Split
from verl_llds.search.search_r1 import INFORMATION_OPEN, SearchR1Protocol, format_observation
from verl_llds.search.tool_call import NOTICE
from verl_llds.search.tools import SearchTool, ToolResult

CALL, ANSWER = "<think> a </think> <search> b </search>", "<think> c </think> <answer> d </answer>"
FOUND = format_observation("Doc 1(Title: T) x")
CUT = f"{INFORMATION_OPEN}Doc 1(Title: T) the pass"


class Calculator:
    name, description, parameter = "calculate", "Works out.", "expression, such as 6 * 7"

    async def __call__(self, argument: str) -> ToolResult:
        return ToolResult(text=argument)


class Lookup(Calculator):
    name, parameter = "look_up", "word"


SEARCH = SearchTool(searcher=None)
NOTICES = [
    SearchR1Protocol(tools).notice("")
    for tools in ((SEARCH,), (SEARCH, Calculator()), (SEARCH, Calculator(), Lookup()))
]
CHAT_NOTICE = f"\nuser\n{NOTICE}\nassistant\n"
CHAT_FOUND = "\nuser\n<tool_response>\nDoc 1(Title: T) x\n</tool_response>\nassistant\n"


@pytest.mark.parametrize("notice", NOTICES)
def test_notices_with_a_sentence_for_each_tool_are_the_environments(notice: str) -> None:
    assert divide(f"bad turn{notice}{ANSWER}", []) == [("bad turn", notice), (ANSWER, "")]
    assert divide(f"{CALL}{FOUND}bad turn{notice}{ANSWER}", []) == [(CALL, FOUND), ("bad turn", notice), (ANSWER, "")]


@pytest.mark.parametrize("notice", [CHAT_NOTICE, f"user\n\n{NOTICE}assistant\n\n", f"\n{NOTICE}\n", NOTICE])
def test_the_notice_of_native_tool_calls_is_the_environments(notice: str) -> None:
    assert divide(f"bad turn{notice}{ANSWER}", []) == [("bad turn", notice), (ANSWER, "")]


@pytest.mark.parametrize(
    "found", [CHAT_FOUND, CHAT_FOUND.replace("user", "tool"), "\n<tool_response>x</tool_response>"]
)
def test_role_words_around_results_are_the_environments(found: str) -> None:
    call = '<tool_call>{"name": "search"}</tool_call>'
    assert divide(f"{call}{found}{call}{found}{ANSWER}", []) == [(call, found), (call, found), (ANSWER, "")]
    two = found + found
    assert divide(f"{call}{two}{ANSWER}", []) == [(call, two), (ANSWER, "")], "nothing was said between them"


def test_a_result_that_lost_its_closing_tag_ends_where_the_policy_speaks() -> None:
    assert divide(f"{CALL}{CUT}{ANSWER}", []) == [(CALL, CUT), (ANSWER, "")]
    assert divide(f"{CALL}{CUT}{CALL}{FOUND}{ANSWER}", []) == [(CALL, CUT), (CALL, FOUND), (ANSWER, "")]
    assert divide(f"{CALL}{CUT}", []) == [(CALL, CUT)]
    chat = "\nuser\n<tool_response>\nDoc 1(Title: T) the pass"
    assert divide(f"{CALL}{chat}{ANSWER}", []) == [(CALL, chat), (ANSWER, "")]


def test_a_passage_that_holds_the_tag_stays_one_observation() -> None:
    found = format_observation(f"Doc 1(Title: T) a{INFORMATION_OPEN}b")
    assert divide(f"{CALL}{found}{ANSWER}", []) == [(CALL, found), (ANSWER, "")]


def records(*lengths: int) -> list[dict[str, Any]]:
    pairs = zip(lengths[::2], lengths[1::2], strict=True)
    return [{"num_chars": policy, "num_observation_chars": observation} for policy, observation in pairs]


def test_counted_characters_divide_what_tags_cannot() -> None:
    own = f"{FOUND}<answer> "
    counted = records(len(own), len("no tag"), len(ANSWER), 0)
    assert divide(f"{own}no tag{ANSWER}", counted) == [(own, "no tag"), (ANSWER, "")]
    assert divide("", records(0, 0)) == [("", "")]


@pytest.mark.parametrize(
    "counted",
    [
        records(3, 0),
        [*records(len(CALL), len(FOUND)), {}],
        records(len(CALL) + len(FOUND) + len(ANSWER) + 1, -1),
        [{"num_chars": "9", "num_observation_chars": None}],
    ],
)
def test_counts_that_do_not_fit_the_text_are_not_believed(counted: list[dict[str, Any]]) -> None:
    assert divide(f"{CALL}{FOUND}{ANSWER}", counted) == [(CALL, FOUND), (ANSWER, "")]


PIECES = st.sampled_from([CALL, ANSWER, FOUND, CUT, CHAT_NOTICE, CHAT_FOUND, *NOTICES, "\n", "user\n", " "]) | st.text()


@given(st.lists(PIECES).map("".join))
@example(FOUND * 3)
def test_no_character_is_lost_and_no_turn_is_empty(response: str) -> None:
    pairs = divide(response, [])
    assert "".join(text + observation for text, observation in pairs) == response
    assert pairs
    assert all(observation for _, observation in pairs[:-1])
    assert response == "" or all(text or observation for text, observation in pairs)


@pytest.mark.parametrize(
    "piece",
    [" ", "\n", "\nuser\n", "<information>", INFORMATION_OPEN, "<tool_response>", f"{CUT}<think>", NOTICES[1][:-9]],
)
def test_a_long_response_takes_time_in_proportion_to_it(piece: str) -> None:
    num = 1_000_000 // len(piece)
    started = time.perf_counter()
    divide(f"<think>a{piece * num}b", [])
    # Quadratic, it would be an hour.
    assert time.perf_counter() - started < 10


def test_a_trajectory_of_a_dump_shows_every_turn_with_its_record() -> None:
    response = f"bad turn{CHAT_NOTICE}{ANSWER}"
    turns = [{"kind": "invalid"}, {"kind": "answer", "content": "d"}]
    row = {"input": "q", "output": response, "score": 1, "step": 1, "turns": turns}
    made = from_dump_row(row, Split.EVALUATION, 1.0)
    assert [(turn.kind, turn.text) for turn in made.turns] == [("invalid", "bad turn"), ("answer", ANSWER)]
