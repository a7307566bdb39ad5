"""The whole World Factbook as passages of about a hundred words, one section of one country each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from facts import factbook_entries, field_text

from verl_llds.search.documents import Document

PASSAGE_WORDS = 100
"""As in the Wikipedia passages that Search-R1 retrieves from."""

_LENGTHS = ("short", "long")
_NO_NAME = {"", "none"}


def prose_passages() -> list[Document]:
    """Return the passages in the Factbook's order; ids start with ``prose-``."""
    texts = [
        f"{country_name(entry)}, {section}\n{chunk}"
        for entry in factbook_entries()
        for section, fields in entry.items()
        for chunk in split_words(" ".join(_sentences(fields)))
    ]
    return [Document(id=f"prose-{number}", contents=text) for number, text in enumerate(texts)]


def country_name(entry: Mapping[str, Any]) -> str:
    """Return the short name of an entry's country or territory, the long one where it has no short one."""
    forms = (field_text(entry, "Government", "Country name", f"conventional {length} form") for length in _LENGTHS)
    return next((form for form in forms if form.lower() not in _NO_NAME), "World")


def split_words(text: str) -> list[str]:
    """Cut a text into pieces of `PASSAGE_WORDS` words; a remainder under a third of that joins the last piece."""
    words = text.split()
    if not words:
        return []
    starts = list(range(0, len(words), PASSAGE_WORDS))
    if len(starts) > 1 and len(words) - starts[-1] < PASSAGE_WORDS // 3:
        starts.pop()
    ends = [*starts[1:], len(words)]
    return [" ".join(words[start:end]) for start, end in zip(starts, ends, strict=True)]


def _sentences(fields: Mapping[str, Any], *path: str) -> Iterator[str]:
    """Yield each field of a section as "name: text.", nested names joined."""
    for name, value in fields.items():
        if name == "text":
            text = field_text({"text": value})
            if text:
                yield f"{', '.join(path)}: {text}{'' if text.endswith('.') else '.'}"
        elif isinstance(value, Mapping):
            yield from _sentences(value, *path, name)
