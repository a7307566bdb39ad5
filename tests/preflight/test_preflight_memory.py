"""The memory estimate: parameters as transformers counts them, and a formula that moves the right way."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verl_llds.compose import compose_run
from verl_llds.errors import ConfigError
from verl_llds.preflight.memory import GIB, Workload, checkpoint_bytes, estimate_memory
from verl_llds.preflight.model_shape import ModelShape

POLICIES = {"qwen2.5_3b": 3.09e9, "qwen2.5_7b": 7.62e9, "llama3.2_3b": 3.21e9}
"""Parameters as the models' cards give them."""

WORK = Workload(
    num_shards=8,
    max_tokens=16_384,
    entropy_gradient=True,
    gradient_checkpointing=True,
    lora_rank=0,
    offload_parameters=True,
    offload_optimizer=True,
    engine_share=0.6,
    engine_shards=1,
)
GPU = 80 * GIB


def declared(policy: str) -> ModelShape:
    return ModelShape.from_mapping(compose_run([f"policy={policy}"]).policy.shape)


@pytest.mark.parametrize("policy", POLICIES)
def test_parameters_are_those_of_the_model(policy: str) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

    shape = declared(policy)
    values = {field: getattr(shape, field) for field in shape.__dataclass_fields__ if field != "attention_bias"}
    config = (Qwen2Config if policy.startswith("qwen") else LlamaConfig)(**values)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert shape.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.num_parameters == pytest.approx(POLICIES[policy], rel=0.002)
    assert ModelShape.from_model_config(config.to_dict()) == shape


def test_adapters_are_those_of_peft() -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Qwen2Config

    shape = ModelShape(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        intermediate_size=96, vocab_size=50,
    )  # fmt: skip
    values = {field: getattr(shape, field) for field in shape.__dataclass_fields__ if field != "attention_bias"}
    model = AutoModelForCausalLM.from_config(Qwen2Config(**values))
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert shape.num_adapter_parameters(8) == trained


def test_a_case_worked_out_by_hand() -> None:
    shape = ModelShape(
        hidden_size=4, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=2,
        intermediate_size=8, vocab_size=10, attention_bias=False,
    )  # fmt: skip
    # Attention 4*4 + 2*4*2 + 4*4, MLP 3*4*8, norms 2*4; embedding 10*4; last norm 4.
    assert (shape.num_layer_parameters, shape.num_parameters) == (152, 2 * 152 + 40 + 4)
    estimate = estimate_memory(shape, replace(WORK, num_shards=1, max_tokens=3), 100)
    assert estimate.states == 16 * 348
    assert estimate.gathered == 2 * (40 + 2 * 152) + 6 * 152
    # Inputs of two layers; inside one, twice: 5h + queries + keys and values + 4i in two bytes, 2h in four.
    assert estimate.activations == 2 * 3 * 4 * 2 + 2 * 3 * (2 * (20 + 4 + 4 + 32) + 32)
    assert estimate.logits == 8 * 3 * 10
    parts = estimate.states + estimate.gathered + estimate.activations + estimate.logits
    assert estimate.update == round(1.05 * parts) + 4 * GIB
    assert estimate.rollout == 60 + GIB


@given(
    shards=st.integers(1, 64),
    tokens=st.integers(1, 65_536),
    rank=st.sampled_from([0, 8, 64]),
    more=st.integers(1, 4096),
)
def test_more_tokens_need_more_and_more_shards_less(shards: int, tokens: int, rank: int, more: int) -> None:
    shape = ModelShape()
    work = replace(WORK, num_shards=shards, max_tokens=tokens, lora_rank=rank)
    one = estimate_memory(shape, work, GPU)
    assert estimate_memory(shape, replace(work, max_tokens=tokens + more), GPU).update > one.update
    assert estimate_memory(shape, replace(work, num_shards=shards + 1), GPU).update < one.update
    assert estimate_memory(shape, replace(work, offload_parameters=False), GPU).rollout > one.rollout
    assert estimate_memory(shape, replace(work, entropy_gradient=False), GPU).logits < one.logits
    assert one.peak == max(one.update, one.sync, one.rollout)


def test_adapters_and_checkpointing_save_memory() -> None:
    one = estimate_memory(ModelShape(), WORK, GPU)
    assert estimate_memory(ModelShape(), replace(WORK, lora_rank=64), GPU).states < one.states / 2
    assert estimate_memory(ModelShape(), replace(WORK, gradient_checkpointing=False), GPU).update > 2 * one.update


def test_a_checkpoint_holds_what_it_is_told_to() -> None:
    shape = ModelShape()
    whole = checkpoint_bytes(shape, lora_rank=0, contents=["model", "optimizer", "extra", "hf_model"])
    assert whole == 16 * shape.num_parameters
    assert checkpoint_bytes(shape, lora_rank=0, contents=["model"]) == 4 * shape.num_parameters
    assert checkpoint_bytes(shape, lora_rank=64, contents=["optimizer"]) == 8 * shape.num_adapter_parameters(64)


@pytest.mark.parametrize("change", [{"hidden_size": 0}, {"vocab_size": "many"}, {"tie_word_embeddings": 1}])
def test_a_shape_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    values = {name: getattr(ModelShape(), name) for name in ModelShape.__dataclass_fields__} | change
    with pytest.raises(ConfigError, match=f"policy.shape.{next(iter(change))}"):
        ModelShape.from_mapping(values)


def test_a_shape_says_what_it_lacks() -> None:
    with pytest.raises(ConfigError, match=r"lacks hidden_size, .*config\.json"):
        ModelShape.from_mapping({"vocab_size": 3})


def test_another_layout_has_no_estimate() -> None:
    assert ModelShape.from_model_config({"model_type": "mamba"}) is None
