"""Which trajectories are well-formed, against a state machine over the text Search-R1 v0.3 would see."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_llds.reward.format import is_well_formed

SEARCH = "<think> I need the year. </think>\n<search> year of x </search>"
ANSWER = "<think> So it is known. </think>\n<answer> Paris </answer>"

CASES = {
    "answer at once": ([ANSWER], True),
    "one search": ([SEARCH, ANSWER], True),
    "many searches": ([SEARCH] * 4 + [ANSWER], True),
    "nothing between the tags": (["<think></think><search></search>", "<think></think><answer></answer>"], True),
    "white space around": ([f"\n {SEARCH}\n\n", f"\t{ANSWER}\n"], True),
    "brackets and other tags as text": (["<think> 1 < 2 > 0, <b>, </b>, <Think> </think><answer> <i> </answer>"], True),
    "line breaks inside": (["<think> a\n\nb </think><answer> c\nd </answer>"], True),
    "no turns": ([], False),
    "an empty turn": ([""], False),
    "an empty turn before the answer": (["", ANSWER], False),
    "ends with a search": ([SEARCH], False),
    "ends with a search after an answer": ([ANSWER, SEARCH], False),
    "answers twice": ([ANSWER, ANSWER], False),
    "answers twice in one turn": ([ANSWER + ANSWER], False),
    "searches and answers in one turn": ([SEARCH + ANSWER], False),
    "searches twice in one turn": ([SEARCH + SEARCH, ANSWER], False),
    "does not think": (["<answer> Paris </answer>"], False),
    "does not think after information": ([SEARCH, "<answer> Paris </answer>"], False),
    "only thinks": (["<think> a </think>", ANSWER], False),
    "thinks twice": ([f"<think> a </think>{ANSWER}"], False),
    "thinks after it answers": ([f"{ANSWER}<think> b </think>"], False),
    "thinks inside thinking": (["<think> a <think> b </think></think><answer> c </answer>"], False),
    "thinks inside its answer": (["<think> a </think><answer> <think> b </think> </answer>"], False),
    "searches while thinking": (["<think> a <search> b </search></think><search> c </search>", ANSWER], False),
    "names a tag while thinking": ([f"<think> now </search> {SEARCH[7:]}", ANSWER], False),
    "text in front": ([f"Well. {ANSWER}"], False),
    "text behind": ([f"{SEARCH} Done.", ANSWER], False),
    "text between": (["<think> a </think> so <answer> b </answer>"], False),
    "end of turn behind": ([f"{ANSWER}<|im_end|>"], False),
    "thinking left open": (["<think> a <answer> b </answer>"], False),
    "answer left open": (["<think> a </think><answer> b"], False),
    "closing tags alone": (["</think></answer>"], False),
    "tags in the wrong order": (["</think> a <think><answer> b </answer>"], False),
    "answer before thinking": (["<answer> b </answer><think> a </think>"], False),
    "tags of two kinds": (["<think> a </think><search> b </answer>"], False),
    "tag with a space": (["<think> a </think>< answer> b </answer>"], False),
    "tag in capitals": (["<THINK> a </THINK><answer> b </answer>"], False),
    "information of its own": ([f"{SEARCH}<information> x </information>", ANSWER], False),
    "information inside thinking": (["<think> <information> x </information> </think><answer> b </answer>"], False),
    "a call of a tool it does not have": (["<think> a </think><calculate> 1 </calculate>", ANSWER], False),
}

CALCULATE = "<think> Sum. </think><calculate> 6 * 7 </calculate>"
NATIVE = '<think> a </think>\n<tool_call>\n{"name": "search", "arguments": {"query": "x"}}\n</tool_call>'
NEWS = SEARCH.replace("search>", "search_news>")

WITH_TOOLS = {
    "a second tool": ([SEARCH, CALCULATE, ANSWER], ("search", "calculate"), True),
    "not the tool of the turn": ([SEARCH, ANSWER], ("calculate",), False),
    "a native call": ([NATIVE, ANSWER], ("tool_call",), True),
    "a search tag in a native call is text": ([NATIVE.replace('"x"', '"<search>"'), ANSWER], ("tool_call",), True),
    "a tool's tag while thinking": ([f"<think> <calculate> {ANSWER[7:]}"], ("search", "calculate"), False),
    "one tool's name begins the other's": ([NEWS, ANSWER], ("search", "search_news"), True),
    "no tools": ([ANSWER], (), True),
    "no tools and a search": ([SEARCH, ANSWER], (), False),
}

TAGS = [f"<{slash}{name}>" for name in ("think", "search", "information", "answer") for slash in ("", "/")]
PIECES = [*TAGS, "", " ", "\n", "x", "<", "think>"]


def sequence_is_valid(text: str) -> bool:
    """Walk over a whole trajectory by a table of what may follow what."""
    follows = {
        ("start", "<think>"): "in think",
        ("in think", "</think>"): "thought",
        ("thought", "<search>"): "in search",
        ("in search", "</search>"): "searched",
        ("searched", "<information>"): "in information",
        ("in information", "</information>"): "start",
        ("thought", "<answer>"): "in answer",
        ("in answer", "</answer>"): "end",
    }
    state = "start"
    for piece in re.findall(r"</?(?:think|search|information|answer)>|.", text, re.DOTALL):
        if piece in TAGS:
            state = follows.get((state, piece), "lost")
        elif not state.startswith("in ") and not piece.isspace():
            return False
    return state == "end"


@st.composite
def trajectories(draw: st.DrawFn) -> list[str]:
    """Draw turns that are well-formed but for a few pieces taken out, put in or exchanged."""
    filler = st.sampled_from(["", " ", "\n", "x", "a b"])
    blank = st.sampled_from(["", " ", "\n\n"])
    turns = []
    for tag in [*["search"] * draw(st.integers(0, 3)), "answer"]:
        thought, said = draw(filler), draw(filler)
        turn = [draw(blank), "<think>", thought, "</think>", draw(blank), f"<{tag}>", said, f"</{tag}>", draw(blank)]
        turns.append(turn)
    for _ in range(draw(st.integers(0, 2))):
        turn = draw(st.sampled_from(turns))
        place = draw(st.integers(0, len(turn)))
        turn[place : place + draw(st.integers(0, 2))] = draw(st.lists(st.sampled_from(PIECES), max_size=2))
    return ["".join(turn) for turn in turns]


@pytest.mark.parametrize(
    ("turns", "expected"), CASES.values(), ids=[f"{number}-{name}" for number, name in enumerate(CASES, start=1)]
)
def test_search_r1_turns(turns: list[str], expected: bool) -> None:
    assert is_well_formed(turns) is expected


@pytest.mark.parametrize(
    ("turns", "tools", "expected"),
    WITH_TOOLS.values(),
    ids=[f"{number}-{name}" for number, name in enumerate(WITH_TOOLS, start=1)],
)
def test_turns_with_other_tools(turns: list[str], tools: list[str], expected: bool) -> None:
    assert is_well_formed(turns, tools) is expected


@given(trajectories() | st.lists(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), max_size=3))
def test_it_is_search_r1s_rule_on_the_whole_text(turns: list[str]) -> None:
    observed = "\n\n<information>Doc 1(Title: x) y</information>\n\n".join(turns)
    own_information = any("<information>" in turn or "</information>" in turn for turn in turns)
    assert is_well_formed(turns) == (sequence_is_valid(observed) and not own_information)


@given(trajectories())
def test_every_turn_counts(turns: list[str]) -> None:
    assert is_well_formed([SEARCH, *turns]) == is_well_formed(turns)
    assert not is_well_formed([*turns, SEARCH])
    assert not is_well_formed(["x", *turns])
