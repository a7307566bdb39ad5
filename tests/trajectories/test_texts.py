"""The text of each token: joined, what the tokenizer decodes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_batch import Letters
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from verl_llds.trajectories.texts import token_texts


@pytest.fixture(scope="module")
def bytes_tokenizer() -> Any:
    """One token a byte, as the rarest characters have in every byte-level BPE, and the end of a turn."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<|im_end|>"])
    return SimpleNamespace(backend_tokenizer=core)


@settings(deadline=None)
@given(text=st.text(max_size=30))
def test_joined_they_are_the_text(bytes_tokenizer: Any, text: str) -> None:
    ids = bytes_tokenizer.backend_tokenizer.encode(text + "<|im_end|>").ids
    texts = token_texts(ids, bytes_tokenizer)
    assert len(texts) == len(ids)
    assert "".join(texts) == text + "<|im_end|>"


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, 256), max_size=12))
def test_any_ids_have_as_many_texts_which_join_to_their_decoding(bytes_tokenizer: Any, ids: list[int]) -> None:
    texts = token_texts(ids, bytes_tokenizer)
    assert len(texts) == len(ids)
    assert "".join(texts) == bytes_tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)


def test_a_shared_character_is_the_last_ones(bytes_tokenizer: Any) -> None:
    ids = bytes_tokenizer.backend_tokenizer.encode("a€b").ids
    assert token_texts(ids, bytes_tokenizer) == ["a", "", "", "€", "b"]


def test_a_tokenizer_without_a_backend_decodes_one_by_one() -> None:
    assert token_texts([0, 2], Letters()) == ["a", "c"]
