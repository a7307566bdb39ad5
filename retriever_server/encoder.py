"""Texts to vectors with a transformers encoder."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from retriever_server.encoder_spec import EncoderSpec
from retriever_server.errors import EncoderError
from retriever_server.settings import Pooling

# Tokenizers read a whole text before they cut it. English has about 5 characters a token, so this keeps
# many times what can be kept and a 10 MB query costs nothing.
_MAX_CHARS_PER_TOKEN = 64


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
        batch_size: int = 32,
        threads: int | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._spec = spec
        self._batch_size = batch_size
        self._tokenizer, self._model = _load(directory, device)
        dim = self._model.config.hidden_size
        if dim != spec.dim:
            raise EncoderError(f"{directory} gives vectors of {dim}, the index has {spec.dim}; check --encoder.")

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors ``float32[len(texts), dim]`` of queries."""
        return self._encode(self._spec.query_prefix, texts, lambda num_done: None)

    def encode_passages(
        self, texts: Sequence[str], on_progress: Callable[[int], object] = lambda num_done: None
    ) -> NDArray[np.float32]:
        """Vectors ``float32[len(texts), dim]`` of passages; ``on_progress`` gets each batch's size."""
        return self._encode(self._spec.passage_prefix, texts, on_progress)

    def _encode(self, prefix: str, texts: Sequence[str], on_progress: Callable[[int], object]) -> NDArray[np.float32]:
        vectors = np.empty((len(texts), self._spec.dim), dtype=np.float32)
        if not texts:
            return vectors
        ids = self._tokenize([prefix + text for text in texts])
        # Texts of like length share a batch, so little of it is padding.
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            vectors[rows] = self._forward([ids[row] for row in rows])
            on_progress(len(rows))
        return vectors

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
        device = self._model.device
        padded = pad_sequence(ids, batch_first=True, padding_value=self._tokenizer.pad_token_id).to(device)
        lengths = torch.tensor([len(row) for row in ids], device=device)
        mask = torch.arange(padded.shape[1], device=device) < lengths[:, None]
        hidden = self._model(input_ids=padded, attention_mask=mask.long()).last_hidden_state.float()
        vectors = _pool(hidden, mask, self._spec.pooling)
        if self._spec.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        result: NDArray[np.float32] = vectors.cpu().numpy()
        return result


def _pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """``hidden[batch, tokens, dim]`` to ``[batch, dim]``; ``mask[batch, tokens]`` is true on real tokens."""
    if pooling is Pooling.CLS:
        return hidden[:, 0]
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


def _load(directory: Path, device: str) -> tuple[Any, Any]:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
        model, info = transformers.AutoModel.from_pretrained(
            directory, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
        model = model.to(device).eval()
    # transformers, safetensors and tokenizers each raise kinds of their own for damaged files.
    except Exception as error:
        raise EncoderError(
            f"the encoder in {directory} cannot be loaded on {device} ({type(error).__name__}: {error}); "
            "check that the directory is complete and --device exists."
        ) from error
    missing = [key for key in info["missing_keys"] if not key.startswith("pooler.")]
    if missing:
        raise EncoderError(f"the weights in {directory} lack {missing[0]!r}: not those of its config.json.")
    return tokenizer, model
