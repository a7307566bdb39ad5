"""A tokenizer of whole words for the lab: every tag of the protocol, and every word with its space, is one token."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lab.world import FIRST_NAMES, LAST_NAMES, RELATIONS
from verl_llds.search.search_r1 import INFORMATION_CLOSE, INFORMATION_OPEN, INVALID_ACTION_MESSAGE

PAD, END = "<pad>", "<end>"
QUESTION = "Question:"
THOUGHT_WORDS = ("i", "must", "look", "this", "up", "now", "first", "it", "says", "so", "the", "answer", "is", "here")

_ACTION_TAGS = ("<think>", " </think>", " <search>", " </search>", " <answer>", " </answer>")
_DOCUMENT_PIECES = ("Doc 1(Title:", "Doc 2(Title:", "Doc 3(Title:", ")", "\n")


def prompt_text(query: str) -> str:
    """Return the prompt of a question; it always has five tokens."""
    return f"{QUESTION} {query}\n"


class WordTokenizer:
    """A `verl_llds.search.tokens.Tokenizer` over the closed vocabulary of the lab's world."""

    def __init__(self) -> None:
        words = (*RELATIONS, *FIRST_NAMES, *LAST_NAMES, *THOUGHT_WORDS)
        protocol = (INFORMATION_OPEN, INFORMATION_CLOSE, INVALID_ACTION_MESSAGE)
        self._texts = [PAD, END, QUESTION, *protocol, *_ACTION_TAGS, *_DOCUMENT_PIECES]
        self._texts += [f" {word}" for word in words]
        self._ids = {text: number for number, text in enumerate(self._texts)}
        assert len(self._ids) == len(self._texts), "no piece twice"
        longest_first = sorted(self._texts, key=len, reverse=True)
        self._pieces = re.compile("|".join(re.escape(text) for text in longest_first))
        self.pad_id = self._ids[PAD]
        self.stop_ids = frozenset(self._ids[text] for text in (" </search>", " </answer>", END))
        """Ids at which a turn of the policy ends."""

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def all_special_tokens(self) -> Sequence[str]:
        """Padding and the end of a text."""
        return (PAD, END)

    def get_vocab(self) -> dict[str, int]:
        """Return every text with its id."""
        return self._ids

    def get_added_vocab(self) -> dict[str, int]:
        """Return the texts that are no words: padding and the end."""
        return {text: self._ids[text] for text in self.all_special_tokens}

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Return the ids of a text; decoding them gives the same text.

        Raises:
            ValueError: the text holds something the lab's world does not.
        """
        assert not add_special_tokens, "the lab's texts have no special tokens of their own"
        ids, end = [], 0
        while end < len(text):
            match = self._pieces.match(text, end)
            if match is None:
                raise ValueError(f"no token of the lab's vocabulary matches {text[end : end + 20]!r} in {text!r}")
            ids.append(self._ids[match.group()])
            end = match.end()
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Return the text of ids."""
        special = self.all_special_tokens if skip_special_tokens else ()
        return "".join(text for text in (self._texts[number] for number in token_ids) if text not in special)
