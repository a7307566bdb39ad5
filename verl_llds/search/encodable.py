"""Text that can be written in UTF-8, whatever a policy, a retriever or a tool made of it."""

from __future__ import annotations


def encodable(text: str) -> str:
    """Return the text with a question mark for each half of a surrogate pair that stands alone.

    JSON and HTTP headers let one through, but no tokenizer takes it, and verl's dumps end the run with it.
    """
    return text.encode(errors="replace").decode()
