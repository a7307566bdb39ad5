"""The strings a model trained with Search-R1 reads, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from verl_llds.search.documents import Document, format_documents
from verl_llds.search.search_r1 import (
    INFORMATION_CLOSE,
    INFORMATION_OPEN,
    INVALID_ACTION_MESSAGE,
    PROMPT_TEMPLATE,
    SearchR1Protocol,
    format_observation,
)
from verl_llds.search.tools import SearchTool, ToolResult

PROTOCOL = SearchR1Protocol([SearchTool(searcher=None)])


def test_strings() -> None:
    assert PROTOCOL.stop_strings == ("</search>", "</answer>")
    assert (INFORMATION_OPEN, INFORMATION_CLOSE) == ("\n\n<information>", "</information>\n\n")
    assert INVALID_ACTION_MESSAGE == (
        "\nMy previous action is invalid. If I want to search, I should put the query between <search> and "
        "</search>. If I want to give the final answer, I should put the answer between <answer> and "
        "</answer>. Let me try again.\n"
    )
    assert PROTOCOL.notice("any turn") == INVALID_ACTION_MESSAGE
    assert PROTOCOL.schemas is None
    assert PROTOCOL.call_tags == ("search",)
    assert PROMPT_TEMPLATE.format(question="Who?") == (
        "Answer the given question. You must conduct reasoning inside <think> and </think> first "
        "every time you get new information. After reasoning, if you find you lack some knowledge, "
        "you can call a search engine by <search> query </search> and it will return the top "
        "searched results between <information> and </information>. You can search as many times "
        "as your want. If you find no further external knowledge needed, you can directly provide "
        "the answer inside <answer> and </answer>, without detailed illustrations. For example, "
        "<answer> Beijing </answer>. Question: Who?\n"
    )


@pytest.mark.parametrize(
    ("text", "kind", "content"),
    [
        ("<think> x </think><search> a b </search>", "call", "a b"),
        ("<answer>\n Paris\n</answer>\n", "answer", "Paris"),
        ("<search> q </search><answer> a </answer>", "call", "q"),
        ("<answer> a </answer><search> q </search>", "answer", "a"),
        ("<search> open <answer> a </answer>", "answer", "a"),
        ("</answer> too early <answer> a </answer>", "answer", "a"),
        ("<answer> a <answer> b </answer>", "answer", "a <answer> b"),
        ("<answer> two\nlines </answer>", "answer", "two\nlines"),
        ("<search></search>", "call", ""),
        ("<search> a </answer>", "invalid", ""),
        ("<SEARCH> a </SEARCH>", "invalid", ""),
        ("<answer> cut", "invalid", ""),
        ("", "invalid", ""),
    ],
)
def test_first_complete_action_wins(text: str, kind: str, content: str) -> None:
    action = PROTOCOL.parse(text)
    tool = "search" if kind == "call" else ""
    assert (action.kind, action.content, action.tool) == (kind, content, tool)
    if kind != "invalid":
        assert action.end is not None
        assert text[: action.end].endswith(("</search>", "</answer>"))


def test_documents_are_numbered_under_their_titles() -> None:
    found = [Document("1", '"Paris"\nThe capital.\nOf France.'), Document("2", "Title only")]
    assert format_documents(found) == ('Doc 1(Title: "Paris") The capital.\nOf France.\nDoc 2(Title: Title only) \n')
    assert format_documents([]) == ""


def test_observation_is_stripped_inside_its_tags() -> None:
    assert format_observation("  Doc 1(Title: a) b\n") == ("\n\n<information>Doc 1(Title: a) b</information>\n\n")
    assert format_observation("") == "\n\n<information></information>\n\n"


@dataclass(frozen=True)
class Adder:
    name: str = "add"
    description: str = "Add numbers."
    parameter: str = "sum"

    async def __call__(self, argument: str) -> ToolResult:
        return ToolResult(text="4")


def test_another_tool_has_its_own_tag_and_a_sentence_in_the_notice() -> None:
    protocol = SearchR1Protocol([SearchTool(searcher=None), Adder()])
    assert protocol.stop_strings == ("</search>", "</add>", "</answer>")
    action = protocol.parse("<think> x </think><add> 2 + 2 </add><search> q </search>")
    assert (action.kind, action.tool, action.content) == ("call", "add", "2 + 2")
    sentence = "If I want to use add, I should put the sum between <add> and </add>. "
    before, after = protocol.notice("").split(sentence)
    assert before + after == INVALID_ACTION_MESSAGE
