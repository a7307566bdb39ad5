"""Search-R1's text protocol: tags in one assistant turn.

The strings are Search-R1's own (PeterGriffinJin/Search-R1, ``search_r1/llm_agent/generation.py``), so that
a model trained there reads the same text here. What differs is listed in ``docs/differences.md``: generation stops
*at* a closing tag instead of being cut there afterwards, and an observation cut to a token budget keeps its
closing tag unless ``search.keep_closing_tag`` is false.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from verl_llds.search.protocol import Action, ActionKind, Frame
from verl_llds.search.tools import Tool

INFORMATION_OPEN = "\n\n<information>"
INFORMATION_CLOSE = "</information>\n\n"

_NOTICE = (
    "\nMy previous action is invalid. "
    "If I want to search, I should put the query between <search> and </search>. "
    "{tools}"
    "If I want to give the final answer, I should put the answer between <answer> and </answer>. "
    "Let me try again.\n"
)

INVALID_ACTION_MESSAGE = _NOTICE.format(tools="")
"""Search-R1's reply to a turn that neither searches nor answers; masked like an observation."""

PROMPT_TEMPLATE = (
    "Answer the given question. You must conduct reasoning inside <think> and </think> first every time you "
    "get new information. After reasoning, if you find you lack some knowledge, you can call a search engine "
    "by <search> query </search> and it will return the top searched results between <information> and "
    "</information>. You can search as many times as your want. If you find no further external knowledge "
    "needed, you can directly provide the answer inside <answer> and </answer>, without detailed "
    "illustrations. For example, <answer> Beijing </answer>. Question: {question}\n"
)
"""Search-R1's user turn ("as your want" is in the original)."""


class SearchR1Protocol:
    """Tags in one assistant turn: a tool's name is its tag."""

    schemas: None = None

    def __init__(self, tools: Sequence[Tool]) -> None:
        """Take the tools the policy may call."""
        self._tools = tuple(tools)

    @cached_property
    def call_tags(self) -> tuple[str, ...]:
        """The tools' names."""
        return tuple(tool.name for tool in self._tools)

    @cached_property
    def stop_strings(self) -> tuple[str, ...]:
        """The closing tags."""
        return tuple(f"</{tag}>" for tag in (*self.call_tags, "answer"))

    @cached_property
    def _action(self) -> re.Pattern[str]:
        tags = "|".join(re.escape(tag) for tag in (*self.call_tags, "answer"))
        return re.compile(rf"<({tags})>(.*?)</\1>", re.DOTALL)

    def messages(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the chat as it is: a row's prompt explains the tags."""
        return list(messages)

    def parse(self, text: str) -> Action:
        """Return the first complete pair of tags in the text of one turn, as Search-R1 does."""
        match = self._action.search(text)
        if match is None:
            return Action(kind=ActionKind.INVALID)
        tag, content, end = match.group(1), match.group(2).strip(), match.end()
        if tag == "answer":
            return Action(kind=ActionKind.ANSWER, content=content, end=end)
        return Action(kind=ActionKind.CALL, content=content, tool=tag, end=end)

    def result_frame(self, turn: str) -> Frame:
        """Return the information tags."""
        return Frame(head=INFORMATION_OPEN, tail=INFORMATION_CLOSE)

    def notice(self, turn: str) -> str:
        """Return Search-R1's reply to an invalid turn, with a sentence more for each further tool."""
        others = [tool for tool in self._tools if tool.name != "search"]
        return _NOTICE.format(
            tools="".join(
                f"If I want to use {tool.name}, I should put the {tool.parameter} between "
                f"<{tool.name}> and </{tool.name}>. "
                for tool in others
            )
        )


def format_observation(body: str) -> str:
    """Wrap retrieved text in the information tags, as the policy sees it."""
    return f"{INFORMATION_OPEN}{body.strip()}{INFORMATION_CLOSE}"
