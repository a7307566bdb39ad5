"""The environment of an episode: protocol, tools and limits, made once from the settings."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from verl_llds.errors import ConfigError
from verl_llds.search.protocol import TextProtocol
from verl_llds.search.search_r1 import SearchR1Protocol
from verl_llds.search.settings import ProtocolName, SearchConfig
from verl_llds.search.tool_call import ToolCallProtocol
from verl_llds.search.tools import Searcher, SearchTool, Tool

_TAKEN = frozenset({"answer", "information", "think", "tool_call", "tool_response"})
"""Tags that mean something else."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What the policy plays against; shared by all episodes of a process."""

    protocol: TextProtocol
    """How turns are read and replies are written."""
    tools: tuple[Tool, ...]
    """What the policy may call."""
    settings: SearchConfig
    """Turns and lengths."""


def make_environment(settings: SearchConfig, searcher: Searcher, tokenizer: Any) -> Environment:
    """Put an environment together.

    Args:
        settings: names the protocol and further tools.
        searcher: answers queries.
        tokenizer: a transformers tokenizer; native tool calls need its chat template.

    Raises:
        ConfigError: for a tool that cannot be imported or used, a chat template without a place for tools, or one whose
            turns leave no room for a result.
    """
    tools = (SearchTool(searcher), *load_tools(settings.tools))
    protocol: TextProtocol
    if settings.protocol is ProtocolName.TOOL_CALL:
        protocol = ToolCallProtocol(tools, tokenizer)
        _check_room(protocol, settings, tokenizer)
    else:
        protocol = SearchR1Protocol(tools)
    return Environment(protocol=protocol, tools=tools, settings=settings)


def _check_room(protocol: TextProtocol, settings: SearchConfig, tokenizer: Any) -> None:
    frame = protocol.result_frame("")
    num_frame = len(tokenizer.encode(frame.head + frame.tail, add_special_tokens=False))
    if num_frame >= settings.max_observation_tokens:
        raise ConfigError(
            f"search.max_observation_tokens={settings.max_observation_tokens}: the chat template takes {num_frame} "
            "tokens around a result, so no passage would be read: raise it (Search-R1: 500)"
        )


def load_tools(paths: Sequence[str]) -> tuple[Tool, ...]:
    """Import and construct the classes named in ``search.tools``.

    Raises:
        ConfigError: naming the path and what is wrong with it.
    """
    tools = tuple(_load(path) for path in paths)
    names = ["search", *(tool.name for tool in tools)]
    for path, tool in zip(paths, tools, strict=True):
        if not re.fullmatch(r"[A-Za-z]\w*", tool.name, re.ASCII) or tool.name in _TAKEN or names.count(tool.name) > 1:
            raise ConfigError(
                f"search.tools: {path} calls itself {tool.name!r}; give it a name of its own out of letters, digits "
                f"and underscores, which is none of {', '.join(sorted(_TAKEN | set(names) - {tool.name}))}"
            )
    return tools


def _load(path: str) -> Tool:
    module, _, name = path.rpartition(".")
    try:
        tool = getattr(importlib.import_module(module), name)()
    # A user's module may raise anything on import.
    except Exception as error:
        raise ConfigError(
            f"search.tools: {path} cannot be made ({type(error).__name__}: {error}): write module.Class, put its "
            "folder on PYTHONPATH, and let the class take no arguments"
        ) from error
    missing = [part for part in ("name", "description", "parameter") if not isinstance(getattr(tool, part, None), str)]
    if missing or not callable(tool):
        raise ConfigError(
            f"search.tools: {path} lacks {', '.join(missing) or '__call__'}: see verl_llds.search.tools.Tool for what "
            "a tool has to have"
        )
    if not inspect.iscoroutinefunction(type(tool).__call__):
        raise ConfigError(
            f"search.tools: {path} would keep hundreds of episodes waiting while it works: make its __call__ an "
            "`async def __call__(self, argument)`"
        )
    made: Tool = tool
    return made
