"""Search-R1's text protocol: tags, stop strings, parsing, observations.

The strings are Search-R1's own (PeterGriffinJin/Search-R1, ``search_r1/llm_agent/generation.py``), so that
a model trained there reads the same text here. Deviations, all on the side of exactness: generation stops
*at* a closing tag instead of being cut there afterwards, and an observation cut to a token budget keeps its
closing tag.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

STOP_STRINGS = ("</search>", "</answer>")
"""Generation ends at these; the stop string itself is kept."""

INFORMATION_OPEN = "\n\n<information>"
INFORMATION_CLOSE = "</information>\n\n"

INVALID_ACTION_MESSAGE = (
    "\nMy previous action is invalid. "
    "If I want to search, I should put the query between <search> and </search>. "
    "If I want to give the final answer, I should put the answer between <answer> and </answer>. "
    "Let me try again.\n"
)
"""Appended, masked like an observation, after a turn that neither searches nor answers."""

PROMPT_TEMPLATE = (
    "Answer the given question. You must conduct reasoning inside <think> and </think> first every time you "
    "get new information. After reasoning, if you find you lack some knowledge, you can call a search engine "
    "by <search> query </search> and it will return the top searched results between <information> and "
    "</information>. You can search as many times as your want. If you find no further external knowledge "
    "needed, you can directly provide the answer inside <answer> and </answer>, without detailed "
    "illustrations. For example, <answer> Beijing </answer>. Question: {question}\n"
)
"""Search-R1's user turn ("as your want" is in the original)."""

_ACTION = re.compile(r"<(search|answer)>(.*?)</\1>", re.DOTALL)


class ActionKind(str, Enum):
    """What one turn of the policy asked for."""

    SEARCH = "search"
    """A query between ``<search>`` tags."""
    ANSWER = "answer"
    """A final answer between ``<answer>`` tags."""
    INVALID = "invalid"
    """Neither: no complete pair of tags in the turn."""


@dataclass(frozen=True)
class Action:
    """One parsed turn."""

    kind: ActionKind
    """Search, answer or invalid."""
    content: str
    """The stripped text between the tags; empty for an invalid turn."""


@dataclass(frozen=True)
class Document:
    """One passage as the retriever returns it."""

    id: str
    """The corpus id."""
    contents: str
    """Title on the first line, text on the rest."""


def parse_action(text: str) -> Action:
    """Return the first complete action in the text of one turn, as Search-R1 does."""
    match = _ACTION.search(text)
    if match is None:
        return Action(ActionKind.INVALID, "")
    return Action(ActionKind(match.group(1)), match.group(2).strip())


def format_documents(documents: Sequence[Document]) -> str:
    """Number the passages and put their titles in front: ``Doc 1(Title: ...) ...`` per line."""
    lines = []
    for number, document in enumerate(documents, start=1):
        title, _, text = document.contents.partition("\n")
        lines.append(f"Doc {number}(Title: {title}) {text}\n")
    return "".join(lines)


def format_observation(body: str) -> str:
    """Wrap retrieved text in the information tags, as the policy sees it."""
    return f"{INFORMATION_OPEN}{body.strip()}{INFORMATION_CLOSE}"
