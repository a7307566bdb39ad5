"""What an episode may call: search, and any tool of the user's.

A tool takes one text and returns one text. How the policy asks for it and reads the answer is the protocol's
affair: a tool called ``calculate`` is ``<calculate> 6 * 7 </calculate>`` in Search-R1's protocol and a JSON call
in the model's own. List a class's import path in ``search.tools`` to add it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from verl_llds.search.documents import Document, format_documents


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """A retriever's answer to one query."""

    documents: tuple[Document, ...]
    """Passages, best first."""
    attempts: int = 1
    """Requests it took; 0 if the answer was known from the same step."""


class Searcher(Protocol):
    """What an episode needs of a retriever."""

    async def search(self, query: str) -> SearchResult:
        """Return the passages for one query, best first.

        Raises:
            RetrievalError: if there is no answer to be had.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ToolResult:
    """What a tool answered."""

    text: str
    """What the policy reads."""
    documents: tuple[Document, ...] = ()
    """The passages it comes from, if it is a search."""
    attempts: int = 1
    """Requests it took; 0 if no server was asked."""


class Tool(Protocol):
    """Something the policy can call with one text."""

    @property
    def name(self) -> str:
        """The tag and function name: letters, digits and underscores."""
        ...

    @property
    def description(self) -> str:
        """One sentence for the policy: what it does."""
        ...

    @property
    def parameter(self) -> str:
        """Name of its one argument."""
        ...

    async def __call__(self, argument: str) -> ToolResult:
        """Do the work; what is wrong with the argument is said in the result, for the policy to read.

        Raises:
            ToolError: if the tool itself cannot work, so that the trajectory says nothing about the policy.
        """
        ...


@dataclass(frozen=True)
class SearchTool:
    """Search as a tool: passages as Search-R1 shows them."""

    searcher: Searcher
    """Where queries go."""
    name: str = "search"
    """Search-R1's tag."""
    description: str = "Search Wikipedia passages for a query."
    """For the schema of a tool call."""
    parameter: str = "query"
    """What Search-R1 calls it."""

    async def __call__(self, argument: str) -> ToolResult:
        """Return the passages found.

        Raises:
            RetrievalError: if there is no answer to be had.
        """
        found = await self.searcher.search(argument)
        return ToolResult(
            text=format_documents(found.documents), documents=tuple(found.documents), attempts=found.attempts
        )


def find_tool(tools: Sequence[Tool], name: str) -> Tool | None:
    """Return the tool of a name, or None."""
    return next((tool for tool in tools if tool.name == name), None)
