"""The text of each token, for a reader without the tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream  # type: ignore[import-untyped]


def token_texts(token_ids: Sequence[int], tokenizer: Any) -> list[str]:
    """Return the text of each id; joined, they are the decoded ids, special tokens included.

    A character that several ids share comes with the last of them, the others are empty.

    Args:
        token_ids: any.
        tokenizer: of transformers. One without a backend in Rust decodes each id by itself, where a character that
            several ids share, and spaces between words, may be lost.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return [tokenizer.decode([token], skip_special_tokens=False) for token in token_ids]
    stream = DecodeStream(skip_special_tokens=False)
    texts = [stream.step(backend, token) or "" for token in token_ids]
    # A stream waits for the rest of a character that never comes.
    whole: str = backend.decode(list(token_ids), skip_special_tokens=False)
    joined = "".join(texts)
    if len(whole) > len(joined) and whole.startswith(joined):
        texts[-1] += whole[len(joined) :]
    return texts
