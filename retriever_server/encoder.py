"""Texts to vectors with a transformers encoder, through PyTorch alone.

ONNX Runtime is left out: its int8 MiniLM gave half the passages per CPU second that PyTorch gives in bfloat16
on a CPU with AMX, and not more than PyTorch in float32.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from retriever_server.encoder_spec import EncoderSpec
from retriever_server.errors import EncoderError
from retriever_server.packing import cut_passes, forward, prepare
from retriever_server.padding import round_batch, round_length
from retriever_server.precision import Dtype, encoder_dtype
from retriever_server.pretrained import load_pretrained
from retriever_server.settings import Pooling

# Tokenizers read a whole text before they cut it. English has about 5 characters a token, so this keeps
# many times what can be kept and a 10 MB query costs nothing.
_MAX_CHARS_PER_TOKEN = 64

# oneDNN keeps compiled code for every shape of a low-precision product it has seen: with free shapes a
# server's memory grew by 440 MB in 24 s. So such shapes are rounded up to few, and the cache is capped; it
# reads these when the first product is made.
for _variable in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_variable, "64")
# A bfloat16 vector depends on the shape of its batch, by up to .001. In batches of one size, each text padded
# as its own length asks, a query gives the same bits alone and among others.
_QUERY_BATCH = 8
_CPU_BATCH, _GPU_BATCH = 32, 256

TORCH_DTYPES = {Dtype.FP32: torch.float32, Dtype.BF16: torch.bfloat16, Dtype.FP16: torch.float16}


class Encoder:
    """A loaded encoder. Use it from one thread at a time.

    Raises:
        EncoderError: The files cannot be loaded as an encoder, or give vectors of another length.
    """

    def __init__(
        self,
        directory: Path,
        spec: EncoderSpec,
        *,
        device: str = "cpu",
        batch_size: int | None = None,
        threads: int | None = None,
        dtype: Dtype = Dtype.FP32,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._spec = spec
        self.dtype = encoder_dtype(dtype, device)
        on_cpu = device.split(":")[0] == "cpu"
        self._batch_size = batch_size or (_CPU_BATCH if on_cpu else _GPU_BATCH)
        self._few_shapes = on_cpu and self.dtype is not Dtype.FP32
        self._tokenizer, self._model = _load(directory, device, TORCH_DTYPES[self.dtype])
        self._packs = on_cpu and self.dtype is Dtype.FP32 and prepare(self._model)
        dim = self._model.config.hidden_size
        if dim != spec.dim:
            raise EncoderError(
                f"the encoder in {directory} gives vectors of {dim}, the index was made with {spec.name}, "
                f"which gives {spec.dim}; check --encoder."
            )

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors ``float32[len(texts), dim]`` of queries."""
        size = _QUERY_BATCH if self._few_shapes else self._batch_size
        return self._encode(self._spec.query_prefix, texts, size, lambda num_done: None)

    def encode_passages(
        self, texts: Sequence[str], on_progress: Callable[[int], object] = lambda num_done: None
    ) -> NDArray[np.float32]:
        """Vectors ``float32[len(texts), dim]`` of passages; ``on_progress`` gets each batch's size."""
        return self._encode(self._spec.passage_prefix, texts, self._batch_size, on_progress)

    def _encode(
        self, prefix: str, texts: Sequence[str], size: int, on_progress: Callable[[int], object]
    ) -> NDArray[np.float32]:
        vectors = np.empty((len(texts), self._spec.dim), dtype=np.float32)
        if not texts:
            return vectors
        ids = self._tokenize([prefix + text for text in texts])
        for rows in self._batches([len(row) for row in ids], size):
            vectors[rows] = self._forward([ids[row] for row in rows])
            on_progress(len(rows))
        return vectors

    def _batches(self, lengths: list[int], size: int) -> Iterator[list[int]]:
        """Rows that go through the model together: of like length, so that little of a batch is padding."""
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        if self._packs:
            yield from (order[part] for part in cut_passes([lengths[row] for row in order], size))
            return
        groups = [order]
        if self._few_shapes:
            # No batch crosses a bucket: how far a text is padded must not depend on the others.
            groups = [list(group) for _, group in groupby(order, key=lambda row: round_length(lengths[row]))]
        for group in groups:
            for start in range(0, len(group), size):
                yield group[start : start + size]

    def _tokenize(self, texts: list[str]) -> list[torch.Tensor]:
        max_chars = self._spec.max_length * _MAX_CHARS_PER_TOKEN
        encoded = self._tokenizer(
            [text[:max_chars] for text in texts],
            truncation=True,
            max_length=self._spec.max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return [torch.tensor(ids) for ids in encoded["input_ids"]]

    @torch.inference_mode()
    def _forward(self, ids: list[torch.Tensor]) -> NDArray[np.float32]:
        vectors = self._side_by_side(ids) if self._packs else self._padded(ids)
        if self._spec.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        result: NDArray[np.float32] = vectors.cpu().numpy()
        return result

    def _side_by_side(self, ids: list[torch.Tensor]) -> torch.Tensor:
        runs = forward(self._model, ids)
        return torch.cat([_pool(hidden, torch.ones(hidden.shape[:2]), self._spec.pooling) for hidden in runs])

    def _padded(self, ids: list[torch.Tensor]) -> torch.Tensor:
        device = self._model.device
        lengths = torch.tensor([len(row) for row in ids])
        padded = pad_sequence(ids, batch_first=True, padding_value=self._tokenizer.pad_token_id)
        if self._few_shapes:
            longest = min(round_length(padded.shape[1]), self._spec.max_length)
            more = (longest - padded.shape[1], 0, round_batch(len(ids)) - len(ids))
            padded = torch.nn.functional.pad(padded, (0, *more), value=self._tokenizer.pad_token_id)
            # A row of padding alone would divide by zero tokens.
            lengths = torch.nn.functional.pad(lengths, (0, more[2]), value=1)
        padded, lengths = padded.to(device), lengths.to(device)
        mask = torch.arange(padded.shape[1], device=device) < lengths[:, None]
        hidden = self._model(input_ids=padded, attention_mask=mask.long()).last_hidden_state.float()
        return _pool(hidden, mask, self._spec.pooling)[: len(ids)]


def _pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """``hidden[batch, tokens, dim]`` to ``[batch, dim]``; ``mask[batch, tokens]`` is true on real tokens."""
    if pooling is Pooling.CLS:
        return hidden[:, 0]
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


def _load(directory: Path, device: str, dtype: torch.dtype) -> tuple[Any, Any]:
    loaded = load_pretrained(
        transformers.AutoModel, directory, device=device, dtype=dtype, role="encoder", option="--encoder"
    )
    missing = [key for key in loaded.missing if not key.startswith("pooler.")]
    if missing:
        raise EncoderError(f"the weights in {directory} lack {missing[0]!r}: not those of its config.json.")
    return loaded.tokenizer, loaded.model
