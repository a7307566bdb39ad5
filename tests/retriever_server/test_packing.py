"""Texts side by side, against the model's own way: each text alone, in double precision."""

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever_server.packing import cut_passes, forward, prepare

VOCABULARY, MAX_LENGTH = 50, 32
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
BERT = transformers.BertConfig(vocab_size=VOCABULARY, max_position_embeddings=MAX_LENGTH, **SIZES)
PADDING = 1
XLM_ROBERTA = transformers.XLMRobertaConfig(
    vocab_size=VOCABULARY, max_position_embeddings=MAX_LENGTH + PADDING + 1, pad_token_id=PADDING, **SIZES
)


def make_model(config: Any) -> Any:
    torch.manual_seed(0)
    # The model keeps its attention function in its configuration.
    return transformers.AutoModel.from_config(copy.deepcopy(config), dtype=torch.float64).eval()


@pytest.fixture(scope="module", params=[BERT, XLM_ROBERTA], ids=["bert", "xlm-roberta"])
def models(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """A model, and the same one for texts side by side."""
    packed = make_model(request.param)
    assert prepare(packed)
    with torch.inference_mode():
        yield make_model(request.param), packed


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, MAX_LENGTH), min_size=1, max_size=8), seed=st.integers(0, 99), rising=st.booleans()
)
def test_a_text_among_others_is_encoded_as_alone(
    models: tuple[Any, Any], lengths: list[int], seed: int, rising: bool
) -> None:
    """Also where a token of the padding's kind is part of a text."""
    alone, packed = models
    generator = torch.Generator().manual_seed(seed)
    lengths = sorted(lengths) if rising else lengths
    ids = [torch.randint(VOCABULARY, (length,), generator=generator) for length in lengths]
    found = [text for run in forward(packed, ids) for text in run]
    assert [len(text) for text in found] == lengths
    for text, hidden in zip(ids, found, strict=True):
        torch.testing.assert_close(hidden, alone(input_ids=text[None]).last_hidden_state[0], rtol=0, atol=1e-12)


def test_texts_of_one_length_come_back_together(models: tuple[Any, Any]) -> None:
    shapes = [tuple(run.shape) for run in forward(models[1], [torch.zeros(n, dtype=torch.long) for n in (2, 2, 2, 5)])]
    assert shapes == [(3, 2, 16), (1, 5, 16)]


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 8), st.integers(1, 100))
def test_passes_hold_every_text_once_and_no_more_than_fit(lengths: list[int], size: int, max_tokens: int) -> None:
    passes = list(cut_passes(lengths, size, max_tokens=max_tokens))
    assert [length for one in passes for length in lengths[one]] == lengths
    assert all(1 <= one.stop - one.start <= size for one in passes)
    assert all(sum(lengths[one]) <= max_tokens or one.stop - one.start == 1 for one in passes)
    for one, after in pairwise(passes):
        assert one.stop - one.start == size or sum(lengths[one]) + lengths[after][0] > max_tokens


@pytest.mark.parametrize(
    "config",
    [
        transformers.BertConfig(is_decoder=True, vocab_size=VOCABULARY, **SIZES),
        transformers.DistilBertConfig(vocab_size=VOCABULARY, dim=16, n_layers=1, n_heads=2, hidden_dim=32),
    ],
    ids=["decoder", "distilbert"],
)
def test_other_models_stay_as_they_are(config: Any) -> None:
    model = make_model(config)
    before = model.config._attn_implementation
    assert not prepare(model)
    assert model.config._attn_implementation == before


def test_a_function_that_was_not_put_in_is_not_counted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers only warns, and the model's own would let the texts attend to each other."""
    model = make_model(BERT)
    monkeypatch.setattr(type(model), "_can_set_attn_implementation", classmethod(lambda cls: False))
    assert not prepare(model)
