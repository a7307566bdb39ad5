"""A cross-encoder that reads query and passage together and orders the best anew."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from retriever_server.encoder import TORCH_DTYPES
from retriever_server.encoder_spec import locate_encoder
from retriever_server.errors import EncoderError
from retriever_server.precision import Dtype, encoder_dtype
from retriever_server.pretrained import load_pretrained

_BATCH = 32
_MAX_TOKENS = 512


class Reranker:
    """A loaded cross-encoder with one score a pair. Use it from one thread at a time.

    Raises:
        EncoderError: The files cannot be loaded, or give more than one score a pair.
    """

    def __init__(self, name: str, *, device: str, dtype: Dtype) -> None:
        directory = locate_encoder(name)
        self._tokenizer, self._model = _load(directory, device, TORCH_DTYPES[encoder_dtype(dtype, device)])
        if self._model.config.num_labels != 1:
            raise EncoderError(
                f"{directory} gives {self._model.config.num_labels} scores a pair, a reranker gives one; "
                "check --reranker."
            )
        limit = getattr(self._model.config, "max_position_embeddings", _MAX_TOKENS)
        self._max_tokens = min(_MAX_TOKENS, limit, self._tokenizer.model_max_length)

    @torch.inference_mode()
    def scores(self, query: str, passages: Sequence[str]) -> list[float]:
        """How well each passage answers ``query``; larger is better, and not bounded.

        Of a pair that is too long for the model the passage is cut, of a query beyond half of that its end before.
        """
        query = self._cut(query)
        scores: list[float] = []
        for start in range(0, len(passages), _BATCH):
            part = list(passages[start : start + _BATCH])
            inputs = self._tokenizer(
                [query] * len(part),
                part,
                truncation="only_second",
                max_length=self._max_tokens,
                padding=True,
                return_tensors="pt",
            ).to(self._model.device)
            scores += self._model(**inputs).logits[:, 0].float().tolist()
        return scores

    def _cut(self, query: str) -> str:
        """What of a query leaves the passage half of the window; nearly always all of it."""
        limit = self._max_tokens // 2
        ids = self._tokenizer(query, add_special_tokens=False)["input_ids"]
        return query if len(ids) <= limit else str(self._tokenizer.decode(ids[:limit]))


def _load(directory: Path, device: str, dtype: torch.dtype) -> tuple[Any, Any]:
    auto_class = transformers.AutoModelForSequenceClassification
    loaded = load_pretrained(auto_class, directory, device=device, dtype=dtype, role="reranker", option="--reranker")
    if loaded.missing:
        raise EncoderError(
            f"the weights in {directory} lack {loaded.missing[0]!r}: no cross-encoder; check --reranker."
        )
    return loaded.tokenizer, loaded.model
