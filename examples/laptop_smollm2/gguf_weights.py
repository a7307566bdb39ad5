"""The weights of a Llama in a GGUF file, as transformers names and orders them.

GGUF keeps each tensor quantized in blocks and, for Llama, the rows of the query and key projections in the order of
its own rotary embedding. Both are undone here. The format is described in ggml's ``docs/gguf.md``
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from transformers import LlamaConfig

_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.weight")


class GGUFError(ValueError):
    """The file holds something else than a Llama whose text is split as SmolLM2's."""


def read_field(reader: GGUFReader, key: str) -> Any:
    """Return one metadata value.

    Raises:
        GGUFError: the file has no such key.
    """
    field = reader.get_field(key)
    if field is None:
        raise GGUFError(f"the GGUF file has no {key}: it is cut short or of another kind of model")
    return field.contents()


def open_gguf(path: Path) -> GGUFReader:
    """Open a file and check that it is a Llama.

    Raises:
        GGUFError: it is not a GGUF file, or another architecture's.
    """
    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError) as error:
        raise GGUFError(f"{path} is not a whole GGUF file: {error}") from error
    architecture = read_field(reader, "general.architecture")
    if architecture != "llama":
        raise GGUFError(f"{path} is a {architecture!r}: only Llama's layout is known here")
    return reader


def read_config(reader: GGUFReader) -> LlamaConfig:
    """Return the shape of the model and its special ids."""

    def llama(key: str) -> Any:
        return read_field(reader, f"llama.{key}")

    return LlamaConfig(
        vocab_size=len(read_field(reader, "tokenizer.ggml.tokens")),
        hidden_size=llama("embedding_length"),
        intermediate_size=llama("feed_forward_length"),
        num_hidden_layers=llama("block_count"),
        num_attention_heads=llama("attention.head_count"),
        num_key_value_heads=llama("attention.head_count_kv"),
        max_position_embeddings=llama("context_length"),
        rms_norm_eps=round(float(llama("attention.layer_norm_rms_epsilon")), 9),
        rope_parameters={"rope_type": "default", "rope_theta": float(llama("rope.freq_base"))},
        # Without an output matrix of its own a model reuses its embeddings.
        tie_word_embeddings=all(tensor.name != "output.weight" for tensor in reader.tensors),
        bos_token_id=read_field(reader, "tokenizer.ggml.bos_token_id"),
        eos_token_id=read_field(reader, "tokenizer.ggml.eos_token_id"),
        pad_token_id=read_field(reader, "tokenizer.ggml.padding_token_id"),
    )


def read_weights(reader: GGUFReader, config: LlamaConfig, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return every weight, dequantized, under transformers' name for it.

    Raises:
        GGUFError: a tensor that Llama does not have.
    """
    weights = {}
    for tensor in reader.tensors:
        values = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        layer = _LAYER.fullmatch(tensor.name)
        if layer is not None and layer[2] in _LAYER_NAMES:
            name = f"model.layers.{layer[1]}.{_LAYER_NAMES[layer[2]]}.weight"
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(layer[2])
            values = values if heads is None else restore_rotary_order(values, heads)
        elif tensor.name in _NAMES:
            name = _NAMES[tensor.name]
        else:
            raise GGUFError(f"the GGUF file has a tensor {tensor.name}, which Llama has not")
        # A copy: what is read lies in a memory map that cannot be written.
        weights[name] = torch.tensor(values, dtype=dtype)
    return weights


def restore_rotary_order(values: np.ndarray[Any, np.dtype[np.float32]], num_heads: int) -> Any:
    """Return the rows of a projection in transformers' order, shape unchanged.

    Each head rotates pairs of its rows. GGUF keeps a pair side by side (0, 1), (2, 3), ...; transformers keeps all
    first rows and then all second ones.

    Args:
        values: (num_heads * head_dim, hidden_size).
        num_heads: heads that the rows belong to.
    """
    rows, columns = values.shape
    pairs = values.reshape(num_heads, rows // num_heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)
