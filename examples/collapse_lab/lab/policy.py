"""The lab's policy: a Qwen2 of 0.4M parameters, and the log-probabilities it gives to responses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicySettings:
    """Shape of the model."""

    hidden_size: int = 128
    """Width."""
    intermediate_size: int = 352
    """Width of the feed-forward layers."""
    num_layers: int = 2
    """Depth; two layers are the fewest that can copy from a passage."""
    num_heads: int = 4
    """Attention heads."""
    num_kv_heads: int = 2
    """Heads of keys and values."""
    embedding_std: float = 0.08
    """Spread of the fresh embeddings; far apart from the start, tokens are sooner told apart and copied."""


def make_policy(settings: PolicySettings, vocab_size: int, seed: int) -> Qwen2ForCausalLM:
    """Return a policy with fresh weights; leaves torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=vocab_size,
                hidden_size=settings.hidden_size,
                intermediate_size=settings.intermediate_size,
                num_hidden_layers=settings.num_layers,
                num_attention_heads=settings.num_heads,
                num_key_value_heads=settings.num_kv_heads,
                max_position_embeddings=256,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=None,
                dtype="float32",
            )
        )
        torch.nn.init.normal_(model.get_input_embeddings().weight, std=settings.embedding_std)
    return model.eval()


def response_log_probs(model: Qwen2ForCausalLM, ids: Tensor, prompt_length: int) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of the response's tokens and the entropy at each of them.

    Args:
        model: the policy.
        ids: ``[B, P + T]`` int64, P prompt tokens in every row, responses padded on the right. A causal model
            needs no mask to ignore padding on the right.
        prompt_length: P.

    Returns:
        Two ``[B, T]`` float32 tensors in nats; what they hold at padding means nothing.
    """
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, prompt_length - 1 : -1]
    log_probs = torch.log_softmax(model.lm_head(hidden), dim=-1)
    entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
    return log_probs.gather(2, ids[:, prompt_length:, None]).squeeze(2), entropy
