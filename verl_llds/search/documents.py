"""A passage, and how passages are shown to the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """One passage as the retriever returns it."""

    id: str
    """The corpus id."""
    contents: str
    """Title on the first line, text on the rest."""


def format_documents(documents: Sequence[Document]) -> str:
    """Number the passages and put their titles in front: ``Doc 1(Title: ...) ...`` per line, as Search-R1 does."""
    lines = []
    for number, document in enumerate(documents, start=1):
        title, _, text = document.contents.partition("\n")
        lines.append(f"Doc {number}(Title: {title}) {text}\n")
    return "".join(lines)
