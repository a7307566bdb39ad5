"""The size of a decoder: Llama's and Qwen2's layout, which all policies of the recipes have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from verl_llds.errors import ConfigError
from verl_llds.fields import check_count, check_switch, known_values


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """Widths and counts of a model with grouped-query attention, a gated MLP and RMSNorm.

    Raises:
        ConfigError: for a width that is no whole number of at least 1.
    """

    hidden_size: int = 2048
    """Width of the residual stream."""
    num_hidden_layers: int = 36
    """Decoder layers."""
    num_attention_heads: int = 16
    """Query heads."""
    num_key_value_heads: int = 2
    """Key and value heads."""
    head_dim: int = 128
    """Width of one head."""
    intermediate_size: int = 11008
    """Width inside the MLP."""
    vocab_size: int = 151936
    """Rows of the embedding."""
    tie_word_embeddings: bool = True
    """Whether the output layer is the embedding."""
    attention_bias: bool = True
    """Whether query, key and value have a bias."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if isinstance(field.default, bool):
                check_switch("policy.shape", self, field.name)
            else:
                check_count("policy.shape", self, field.name, 1)

    @classmethod
    def from_mapping(cls, values: object) -> ModelShape:
        """Return the shape that ``policy.shape`` of a run's configuration declares.

        Raises:
            ConfigError: for an unknown, missing or impossible field.
        """
        known = known_values("policy.shape", cls, values)
        missing = [field.name for field in fields(cls) if field.name not in known]
        if missing:
            raise ConfigError(f"policy.shape lacks {', '.join(missing)}: copy them from the model's config.json")
        return cls(**known)

    @classmethod
    def from_model_config(cls, config: Mapping[str, Any]) -> ModelShape | None:
        """Return the shape in a ``config.json`` of Hugging Face's, or None for another layout."""
        if config.get("model_type") not in ("qwen2", "qwen3", "llama"):
            return None
        heads = int(config["num_attention_heads"])
        return cls(
            hidden_size=config["hidden_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            intermediate_size=config["intermediate_size"],
            vocab_size=config["vocab_size"],
            tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
            attention_bias=config["model_type"] == "qwen2" or bool(config.get("attention_bias", False)),
        )

    def linear_layers(self) -> list[tuple[int, int]]:
        """Return (inputs, outputs) of the linear layers of one decoder layer."""
        hidden, inner = self.hidden_size, self.intermediate_size
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        attention = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
        return [*attention, (hidden, inner), (hidden, inner), (inner, hidden)]

    @property
    def num_layer_parameters(self) -> int:
        """Parameters of one decoder layer, two norms included."""
        biases = self.head_dim * (self.num_attention_heads + 2 * self.num_key_value_heads)
        weights = sum(inputs * outputs for inputs, outputs in self.linear_layers())
        return weights + 2 * self.hidden_size + (biases if self.attention_bias else 0)

    @property
    def num_embedding_parameters(self) -> int:
        """Parameters of the embedding, and of the output layer where it is one of its own."""
        return self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)

    @property
    def num_parameters(self) -> int:
        """All parameters, the last norm included."""
        return self.num_hidden_layers * self.num_layer_parameters + self.num_embedding_parameters + self.hidden_size

    def num_adapter_parameters(self, rank: int) -> int:
        """Return the parameters of LoRA adapters of that rank on every linear layer of the decoder."""
        return self.num_hidden_layers * rank * sum(inputs + outputs for inputs, outputs in self.linear_layers())
