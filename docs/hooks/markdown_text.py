"""Pieces of Markdown that several generated pages are made of."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

_CODE = re.compile(r"(`+[^`]+`+)")
_ROLE = re.compile(r":(?:func|class|mod|meth):(?=`)")


def prose(docstring: str) -> str:
    """Return a docstring as Markdown, without Sphinx's roles; a code span is one in both."""
    return _ROLE.sub("", docstring).strip()


def line(docstring: str) -> str:
    """Return a docstring as Markdown in one line."""
    return " ".join(prose(docstring).split())


def cell(text: str) -> str:
    """Return a text as one cell of a table; Python-Markdown takes no bar in a code span for a border."""
    parts = _CODE.split(line(text))
    return "".join(part if number % 2 else part.replace("|", "&#124;") for number, part in enumerate(parts))


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table of Markdown cells."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(cell(one) for one in row) + " |" for row in lines) + "\n"


def code(text: str) -> str:
    """Return a text without backticks as code, nothing for nothing."""
    return f"`{text}`" if text else ""


def literal(text: str) -> str:
    """Return HTML of a text that stands as it is, whatever is in it."""
    return f"<code>{html.escape(text, quote=False)}</code>"
