"""Token ids of turns and observations: where a text ends in sampled ids, and ids of what the environment says.

Sampled ids are never encoded again. Their text is decoded to find a place in it, and the place is given as a
position among the ids, exact for any tokenisation.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from verl_llds.search.encodable import encodable
from verl_llds.search.protocol import Frame


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that an episode uses."""

    def __hash__(self) -> int:
        """Return a hash: what is learnt of a tokenizer is kept."""
        ...

    @property
    def all_special_tokens(self) -> Sequence[str]:
        """Texts that encode to control ids, such as the end of a turn."""
        ...

    def get_vocab(self) -> dict[str, int]:
        """Return all tokens with their ids."""
        ...

    def get_added_vocab(self) -> dict[str, int]:
        """Return the tokens that stand outside the model of the text, tags of tool calls among them."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of a text."""
        ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Return the text of ids."""
        ...


class Observation(NamedTuple):
    """Ids of a tool's result."""

    ids: list[int]
    """With the text around it."""
    is_truncated: bool
    """Whether part of the result is missing."""


def turn_text(token_ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """Return the text of a turn, special tokens included: some models' tags are such."""
    return tokenizer.decode(token_ids, skip_special_tokens=False)


def completing_position(text: str, token_ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """Return the position of the id whose decoding completes ``text``, a beginning of the turn's text.

    An id that holds the last character of the text and more belongs to it.
    """
    low, high = 0, len(token_ids) - 1
    while low < high:
        middle = (low + high) // 2
        # Compared as text: half a character may decode to more characters than the whole one.
        if turn_text(token_ids[: middle + 1], tokenizer).startswith(text):
            high = middle
        else:
            low = middle + 1
    return low


def num_ids_until(text: str, token_ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """Return how many ids it takes to complete ``text``, a beginning of the turn's text."""
    # An engine that stopped at the closing tag needs no search: without its last id the tag is not there.
    if not turn_text(token_ids[:-1], tokenizer).startswith(text):
        return len(token_ids)
    return completing_position(text, token_ids, tokenizer) + 1


def encode_notice(text: str, tokenizer: Tokenizer) -> list[int]:
    """Return the ids of a text the protocol wrote."""
    return tokenizer.encode(text, add_special_tokens=False)


def encode_observation(
    body: str, frame: Frame, tokenizer: Tokenizer, limit: int, *, keep_tail: bool = True
) -> Observation:
    """Return the ids of a tool's result in its frame, at most ``limit``.

    Args:
        body: what the tool answered; texts of special tokens in it are replaced by a space, since a passage could
            end the turn or open another speaker's with them.
        frame: what stands around it.
        tokenizer: encodes.
        limit: the most ids, the frame's included.
        keep_tail: whether a result that is cut keeps the frame's end. Search-R1 loses it.
    """
    # No id holds more characters than the longest token; a megabyte of text need not be encoded to be cut.
    room = limit * _longest_token(tokenizer)
    is_cut = len(body) > room
    body = _control_texts(tokenizer).sub(" ", encodable(body[:room])).strip()
    ids = tokenizer.encode(f"{frame.head}{body}{frame.tail}", add_special_tokens=False)
    if len(ids) <= limit:
        return Observation(ids, is_cut)
    if not keep_tail:
        return Observation(ids[:limit], True)
    # Encoded apart, so that the cut cannot leave a piece of one closing tag before the other.
    opened = tokenizer.encode(f"{frame.head}{body}", add_special_tokens=False)
    closing = tokenizer.encode(frame.tail, add_special_tokens=False)
    return Observation(opened[: limit - len(closing)] + closing, True)


@functools.lru_cache(maxsize=8)
def _control_texts(tokenizer: Tokenizer) -> re.Pattern[str]:
    texts = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    longest_first = sorted((text for text in texts if text.strip()), key=len, reverse=True)
    # A pattern that matches nothing, for a tokenizer without such tokens.
    return re.compile("|".join(re.escape(text) for text in longest_first) or r"(?!)")


@functools.lru_cache(maxsize=8)
def _longest_token(tokenizer: Tokenizer) -> int:
    return max(len(token) for token in tokenizer.get_vocab())
