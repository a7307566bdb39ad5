"""Texts side by side in one row of tokens, so that nothing an encoder computes is padding.

Every layer of BERT and XLM-RoBERTa but attention treats each token by itself. Attention is told where the texts end,
and runs over all texts of one length together. It is put in through transformers' ``AttentionInterface``
(https://huggingface.co/docs/transformers/attention_interface), to which these models pass the keyword arguments that
they do not know themselves.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
import transformers

# In float32 on an AVX2 CPU, MiniLM took the same time a token with 512 to 4,096 of them in a pass, more with fewer.
MAX_TOKENS = 2048
_NAME = "side_by_side"


class Run(NamedTuple):
    """Texts of one length that lie next to each other."""

    length: int
    """Tokens of each."""

    num_texts: int
    """How many there are."""


def prepare(model: Any) -> bool:
    """Make ``model`` take texts side by side, and only so; returns whether it can.

    Models of BERT's architecture can (e5, bge, MiniLM, contriever) and of XLM-RoBERTa's (multilingual-e5, bge-m3).
    """
    if model.config.model_type not in ("bert", "xlm-roberta") or model.config.is_decoder:
        return False
    transformers.AttentionInterface.register(_NAME, _attend)
    model.set_attn_implementation(_NAME)
    # Where transformers doubts that it works it leaves the model's own function, which would mix the texts.
    return bool(model.config._attn_implementation == _NAME)


def cut_passes(lengths: Sequence[int], size: int, *, max_tokens: int = MAX_TOKENS) -> Iterator[slice]:
    """Texts of ``lengths`` in passes of at most ``size`` of them and ``max_tokens``, unless one text alone has more."""
    start = num_tokens = 0
    for stop, length in enumerate(lengths):
        if stop > start and (stop - start == size or num_tokens + length > max_tokens):
            yield slice(start, stop)
            start, num_tokens = stop, 0
        num_tokens += length
    if lengths:
        yield slice(start, len(lengths))


def forward(model: Any, ids: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The last hidden states of texts, whose lengths should rise so that few runs differ.

    Args:
        model: As `prepare` left it.
        ids: ``int64[length]`` a text.

    Returns:
        ``[num_texts, length, dim]`` for each run of texts of one length, in order.
    """
    runs = [Run(length, len(list(same))) for length, same in groupby(map(len, ids))]
    tokens = torch.cat(list(ids)).to(model.device)
    positions = torch.cat([_positions(model, texts).flatten() for texts in _split(tokens, runs)])
    hidden = model(input_ids=tokens[None], position_ids=positions[None], runs=runs).last_hidden_state[0]
    return list(_split(hidden, runs))


def _positions(model: Any, texts: torch.Tensor) -> torch.Tensor:
    """The positions that ``model`` would give to the tokens ``int64[num_texts, length]``."""
    if model.config.model_type == "bert":
        return torch.arange(texts.shape[1], device=texts.device).expand_as(texts)
    # They begin after that of the padding, which tokens of its kind have.
    found: torch.Tensor = model.embeddings.create_position_ids_from_input_ids(texts, model.embeddings.padding_idx)
    return found


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    runs: Sequence[Run],
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each text; takes ``[1, heads, tokens, size]`` and gives ``[1, tokens, heads, size]``."""
    assert attention_mask is None, "no token is padding"
    by_run = zip(*(_split(states[0].transpose(0, 1), runs) for states in (query, key, value)), strict=True)
    attended = []
    for states in by_run:
        q, k, v = (part.transpose(1, 2) for part in states)
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scaling)
        attended.append(mixed.transpose(1, 2).flatten(0, 1))
    return torch.cat(attended)[None], None


def _split(tokens: torch.Tensor, runs: Sequence[Run]) -> Iterator[torch.Tensor]:
    """``[tokens, ...]`` as ``[num_texts, length, ...]`` for each run."""
    parts = tokens.split_with_sizes([run.length * run.num_texts for run in runs])
    return (part.view(run.num_texts, run.length, *part.shape[1:]) for part, run in zip(parts, runs, strict=True))
