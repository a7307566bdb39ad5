"""Native tool calls: the model's own chat template, with each tool as a JSON schema.

The policy writes ``<tool_call>{"name": "search", "arguments": {"query": "..."}}</tool_call>`` (the Hermes format,
which Qwen2.5 was trained on), the result comes back as a turn of the role ``tool``, and the final answer stands
between ``<answer>`` tags as in Search-R1, so that episode, reward and masks are the same. One call a turn: generation
stops at the closing tag. What surrounds a result is read off the template once, never written by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from verl_llds.errors import ConfigError
from verl_llds.search.encodable import encodable
from verl_llds.search.protocol import Action, ActionKind, Frame
from verl_llds.search.search_r1 import PROMPT_TEMPLATE as SEARCH_R1_TEMPLATE
from verl_llds.search.tools import Tool, find_tool

PROMPT_TEMPLATE = (
    "Answer the given question. Reason inside <think> and </think> first, every time you get new information. If you "
    "lack some knowledge, call a function; you can do so as often as you want. As soon as you need nothing more, give "
    "the answer inside <answer> and </answer>, without detailed illustrations. For example, <answer> Beijing "
    "</answer>. Question: {question}\n"
)
"""The user turn put in place of Search-R1's, whose tags do not exist here."""

NOTICE = (
    "That was neither a function call nor an answer. To call a function, write one JSON object with its name and "
    "arguments between <tool_call> and </tool_call>. To give the final answer, write it between <answer> and "
    "</answer>. Try again."
)
"""Reply to an invalid turn, as a turn of the user."""

_ACTION = re.compile(r"<(tool_call|answer)>(.*?)</\1>", re.DOTALL)
_HEAD, _TAIL = SEARCH_R1_TEMPLATE.split("{question}")

_SPOKEN = "SPOKENBYPOLICY"
_SAID = 'SAID"BY\nENVIRONMENT'
"""A quote and a line break inside show whether a template escapes what it is given."""


class ChatTokenizer(Protocol):
    """The part of a transformers tokenizer that renders chats."""

    @property
    def all_special_tokens(self) -> Sequence[str]:
        """Texts that encode to control ids, such as the end of a turn."""
        ...

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> Any:
        """Return a chat as text."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Turns:
    """What a template writes around a tool's and a user's turn, after a turn of the assistant."""

    tool: Frame
    user: Frame


class ToolCallProtocol:
    """Chat turns with JSON calls.

    Raises:
        ConfigError: at construction, if the tokenizer's chat template has no place for tools.
    """

    stop_strings = ("</tool_call>", "</answer>")
    call_tags = ("tool_call",)

    def __init__(self, tools: Sequence[Tool], tokenizer: ChatTokenizer) -> None:
        """Take the tools the policy may call and the tokenizer whose template renders them."""
        self._tools = tuple(tools)
        self._special = tuple(tokenizer.all_special_tokens)
        self.schemas = [_schema(tool) for tool in tools]
        self._turns = _read_template(tokenizer, self.schemas)

    def messages(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the chat with Search-R1's instructions replaced; any other chat as it is."""
        return [{**message, "content": _reworded(message["content"])} for message in messages]

    def parse(self, text: str) -> Action:
        """Return the first complete call or answer in the text of one turn.

        A call is valid if it is a JSON object that names a known function and gives its one argument as text.
        """
        match = _ACTION.search(text)
        if match is None:
            return Action(kind=ActionKind.INVALID)
        if match.group(1) == "answer":
            return Action(kind=ActionKind.ANSWER, content=match.group(2).strip(), end=match.end())
        return self._call(match.group(2), match.end())

    def _call(self, text: str, end: int) -> Action:
        try:
            call = json.loads(text)
            tool = find_tool(self._tools, call["name"])
            content = call["arguments"][tool.parameter] if tool is not None else None
        # Nesting without end is a RecursionError.
        except (ValueError, KeyError, TypeError, RecursionError):
            return Action(kind=ActionKind.INVALID, end=end)
        if tool is None or not isinstance(content, str):
            return Action(kind=ActionKind.INVALID, end=end)
        return Action(kind=ActionKind.CALL, content=encodable(content).strip(), tool=tool.name, end=end)

    def result_frame(self, turn: str) -> Frame:
        """Return the template's turn of a tool, up to where the policy speaks again."""
        return self._after(turn, self._turns.tool)

    def notice(self, turn: str) -> str:
        """Return the reply to an invalid turn as the template's turn of a user."""
        frame = self._after(turn, self._turns.user)
        return f"{frame.head}{NOTICE}{frame.tail}"

    def _after(self, turn: str, frame: Frame) -> Frame:
        """Leave out the token that ends the policy's turn if the policy has sampled it."""
        end = next((token for token in self._special if frame.head.startswith(token)), "")
        head = frame.head.removeprefix(end) if turn.endswith(end) else frame.head
        return Frame(head=head, tail=frame.tail)


def _schema(tool: Tool) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {tool.parameter: {"type": "string"}},
        "required": [tool.parameter],
    }
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }


def _reworded(content: Any) -> Any:
    if not isinstance(content, str) or not (content.startswith(_HEAD) and content.endswith(_TAIL)):
        return content
    return PROMPT_TEMPLATE.format(question=content[len(_HEAD) : len(content) - len(_TAIL)])


def _read_template(tokenizer: ChatTokenizer, schemas: list[dict[str, Any]]) -> _Turns:
    """Render short chats and return what the template puts around the environment's turns.

    Raises:
        ConfigError: if the template ignores the tools, escapes results, or knows no role ``tool``.
    """
    started = [{"role": "user", "content": "Q"}]
    remedy = (
        "use a model that was trained for tool calls (Qwen2.5-Instruct and later), set "
        "actor_rollout_ref.model.custom_chat_template, or search.protocol=search_r1"
    )
    prompt = _render(tokenizer, started, schemas)
    if not all(schema["function"]["name"] in prompt for schema in schemas):
        raise ConfigError(f"search.protocol=tool_call: the chat template does not show the tools: {remedy}")
    spoken = [*started, {"role": "assistant", "content": _SPOKEN}]
    frames = []
    for role in ("tool", "user"):
        _, _, after = _render(tokenizer, [*spoken, {"role": role, "content": _SAID}], schemas).rpartition(_SPOKEN)
        head, found, tail = after.partition(_SAID)
        if not found:
            raise ConfigError(
                f"search.protocol=tool_call: the chat template does not show the text of the role {role!r} as it is: "
                f"{remedy}"
            )
        frames.append(Frame(head=head, tail=tail))
    return _Turns(tool=frames[0], user=frames[1])


def _render(tokenizer: ChatTokenizer, messages: list[dict[str, Any]], schemas: list[dict[str, Any]]) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, tools=schemas, add_generation_prompt=True, tokenize=False))
    # Jinja's errors, and whatever a template's own functions raise.
    except Exception as error:
        raise ConfigError(
            f"search.protocol=tool_call: the chat template cannot render {messages[-1]['role']!r} turns ({error}): use "
            "a model that was trained for tool calls, or search.protocol=search_r1"
        ) from error
