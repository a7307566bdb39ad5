"""Where the turns of a response begin and end, for dumps that hold it as one text.

The turn records of a search episode say so in characters (`verl_llds.search.facts.turn_records`). Other dumps are
divided by what the environment of either protocol writes around its replies, which a policy can also write itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from verl_llds.search.search_r1 import INFORMATION_CLOSE, INFORMATION_OPEN, INVALID_ACTION_MESSAGE
from verl_llds.search.tool_call import NOTICE

_LAST_SENTENCE = "If I want to give the final answer"
_NOTICE_HEAD, _, _NOTICE_TAIL = map(re.escape, INVALID_ACTION_MESSAGE.partition(_LAST_SENTENCE))
_TOOL_SENTENCE = r"If I want to use (?P<tool>\w+), I should put the [^\n<]* between <(?P=tool)> and </(?P=tool)>\. "

_BEGINNING = re.compile(
    rf"(?P<information>{INFORMATION_OPEN})|(?P<tool_response><tool_response>)|(?P<chat_notice>{re.escape(NOTICE)})"
    rf"|(?P<notice>{_NOTICE_HEAD}(?:{_TOOL_SENTENCE})*{re.escape(_LAST_SENTENCE)}{_NOTICE_TAIL})"
)
_ENDS = {
    "information": re.compile(rf"(?P<closing>{INFORMATION_CLOSE.strip()}\n{{0,2}})|(?={INFORMATION_OPEN})"),
    "tool_response": re.compile(r"(?P<closing></tool_response>)|(?=<tool_response>)"),
}
"""Of results: the closing tag, or where that was cut off, the beginning of the next one at the latest."""

_POLICY_TAG = re.compile(r"<(?:think|search|tool_call|answer)>")

_OWN_TURN = ("tool_response", "chat_notice")
"""Replies that a chat template puts into a turn, whose roles stay where its special tokens were dropped."""
_ROLE_BEFORE = re.compile(r"(?:\n?(?:user|tool)\n{1,2}|\n{1,2})\Z")
_ROLE_AFTER = re.compile(r"\n?(?:assistant\n{0,2})?")
_LONGEST_ROLE = 7


def divide(response: str, records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return what the policy wrote and what came back, turn by turn; joined, they are the response.

    Args:
        response: decoded without special tokens, as verl dumps it.
        records: of its turns; none where they were not dumped.
    """
    counts = [record.get(name) for record in records for name in ("num_chars", "num_observation_chars")]
    sizes = [count for count in counts if isinstance(count, int) and count >= 0]
    if sizes and len(sizes) == len(counts) and sum(sizes) == len(response):
        return _cut(response, list(accumulate(sizes, initial=0)))
    return _cut(response, _by_tags(response))


def _cut(response: str, bounds: Sequence[int]) -> list[tuple[str, str]]:
    parts = [response[start:end] for start, end in pairwise(bounds)]
    return list(zip(parts[::2], parts[1::2], strict=True))


def _by_tags(response: str) -> list[int]:
    """Return where policy and environment begin, in turns, and the end; in time proportional to the response."""
    bounds = [0]
    while (found := _BEGINNING.search(response, bounds[-1])) is not None:
        start, end = _span(response, found, bounds[-1])
        if start == bounds[-1] and len(bounds) > 1 and found.lastgroup in _ENDS:
            # Nothing was called: a passage holds such a tag itself, or there are several results.
            bounds[-1] = end
        else:
            bounds += [start, end]
    if bounds[-1] < len(response) or len(bounds) == 1:
        bounds += [len(response)] * 2
    return bounds


def _span(response: str, found: re.Match[str], place: int) -> tuple[int, int]:
    """Return where a reply of the environment begins, not before ``place``, and ends."""
    kind = str(found.lastgroup)
    start, end = found.span()
    is_whole = True
    if kind in _ENDS:
        closed = _ENDS[kind].search(response, end)
        is_whole = closed is not None and closed["closing"] is not None
        last = len(response) if closed is None else closed.end()
        spoken = None if is_whole else _POLICY_TAG.search(response, end, last)
        end = last if spoken is None else spoken.start()
    if kind in _OWN_TURN:
        before = _ROLE_BEFORE.search(response, max(place, start - _LONGEST_ROLE), start)
        start = start if before is None else before.start()
        after = _ROLE_AFTER.match(response, end) if is_whole else None
        end = end if after is None else after.end()
    return start, end
