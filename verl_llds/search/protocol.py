"""What a text protocol between policy and environment has to say.

Two exist: `verl_llds.search.search_r1` (tags in one assistant turn) and `verl_llds.search.tool_call` (the model's
own chat turns). An episode is the same in both: the policy calls a tool or answers, and reads what comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

ANSWER_OPEN = "<answer>"
ANSWER_CLOSE = "</answer>"


class ActionKind(str, Enum):
    """What one turn of the policy asked for."""

    CALL = "call"
    """A tool, with an argument; searching is one."""
    ANSWER = "answer"
    """To give the final answer, between ``<answer>`` tags."""
    INVALID = "invalid"
    """Nothing that the protocol knows."""


@dataclass(frozen=True, kw_only=True)
class Action:
    """One parsed turn."""

    kind: ActionKind
    """Call, answer or invalid."""
    content: str = ""
    """The argument or the answer, stripped; empty for an invalid turn."""
    tool: str = ""
    """The tool called."""
    end: int | None = None
    """Where the action ends in the text of the turn, closing tag included; None for an invalid turn."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The text around what the environment says."""

    head: str
    """Before it."""
    tail: str
    """After it; kept when what is between them is cut."""


class TextProtocol(Protocol):
    """How the policy's turns are read and the environment's replies are written."""

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Generation ends at these; the stop string itself is kept."""
        ...

    @property
    def call_tags(self) -> tuple[str, ...]:
        """Tags a well-formed turn may call a tool with."""
        ...

    @property
    def schemas(self) -> list[dict[str, Any]] | None:
        """JSON schemas of the tools for the chat template, or None if the prompt's text explains them."""
        ...

    def messages(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the chat a dataset row holds, worded for this protocol."""
        ...

    def parse(self, text: str) -> Action:
        """Return the first complete action in the text of one turn."""
        ...

    def result_frame(self, turn: str) -> Frame:
        """Return what surrounds a tool's result after the text of a turn, which may hold the turn's end or not."""
        ...

    def notice(self, turn: str) -> str:
        """Return the whole reply to the text of a turn that neither calls a tool nor answers."""
        ...
