"""How much GPU memory a run will need: a formula, unverified on a GPU so far."""

from __future__ import annotations

from dataclasses import dataclass

from verl_llds.preflight.model_shape import ModelShape

GIB = 2**30

_CONTEXT = 1 * GIB
"""What CUDA, cuBLAS and NCCL hold in the trainer's process; a usual figure, not measured here."""

_ASLEEP = 3 * GIB
"""What vLLM keeps while it sleeps, its CUDA context and graphs; a usual figure, not measured here."""

_BUCKET = 2 * GIB
"""verl's ``checkpoint_engine.update_weights_bucket_megabytes``: 2048."""

_FRAGMENTATION = 1.05
"""Share of the allocator's memory that no tensor fills; a usual figure, not measured here."""

_LOGIT_BYTES = 2
"""bfloat16 logits; without an entropy term flash-attn's cross entropy writes their gradient over them."""

_LOGIT_BYTES_ENTROPY = 8
"""With one: the logits, both gradients and their sum, of two bytes each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What, beside the model's shape, decides over memory."""

    num_shards: int
    """GPUs over which FSDP spreads parameters, gradients and optimizer state: all of the run."""
    max_tokens: int
    """Tokens of a micro-batch on one GPU."""
    entropy_gradient: bool
    """Whether the loss has an entropy term, whose gradient needs the logits once more."""
    gradient_checkpointing: bool
    """Whether only the input of each layer is kept for the backward pass."""
    lora_rank: int
    """Rank of the adapters that are trained instead of the model; 0 trains the model."""
    offload_parameters: bool
    """Whether parameters leave the GPU while vLLM samples."""
    offload_optimizer: bool
    """Whether AdamW's moments leave the GPU while vLLM samples."""
    engine_share: float
    """Share of a GPU that vLLM takes for weights and KV cache."""
    engine_shards: int
    """GPUs over which one engine spreads its weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """Peak bytes on one GPU in the three phases of a step, which follow each other."""

    states: int
    """Part of ``update``: parameters, gradients and AdamW's two moments in float32."""
    gathered: int
    """Part of ``update``: parameters gathered in bfloat16 from all shards, and the gradient of one layer."""
    activations: int
    """Part of ``update``: inputs of the layers, and inside one layer (all of them without checkpointing)."""
    logits: int
    """Part of ``update``: the logits [tokens, vocabulary] and their gradients."""
    update: int
    """Forward and backward of the largest micro-batch while vLLM sleeps."""
    sync: int
    """Weights go from the trainer to vLLM, whose KV cache is still empty."""
    rollout: int
    """vLLM samples, beside what the trainer left on the GPU."""

    @property
    def peak(self) -> int:
        """Bytes that one GPU must have."""
        return max(self.update, self.sync, self.rollout)


def estimate_memory(shape: ModelShape, work: Workload, gpu_bytes: int) -> MemoryEstimate:
    """Return the peak memory of one GPU by phase, for verl's FSDP2 engine and a vLLM on the same GPUs.

    With P parameters (Q of them trained: P, or the adapters' with LoRA, whose float32 moments are alone kept), N
    shards, T tokens, width h, L layers and vocabulary V, in bytes:

    * states ``4P/N + 12Q/N``: float32 parameters; gradients and two moments of what is trained;
    * gathered ``2(E + 2l) + 6l``: FSDP keeps the root group, the embeddings E, gathered; two layers of l parameters
      (the one at work and the next) in bfloat16; the gradient of one in bfloat16 and in float32 for its reduction;
    * activations ``2ThL`` for the layers' inputs, and what the backward pass of one layer holds (see `_layer_bytes`);
    * logits ``2TV``, or ``8TV`` with an entropy term;
    * update: all of these and 5% for fragmentation, the trainer's context, and vLLM asleep;
    * sync ``4P/N + 2P/tp``, the largest tensor in float32, one bucket, both contexts;
    * rollout: vLLM's share, the trainer's context, and the float32 states that are not offloaded.

    The reference model waits in host memory and is gathered layer by layer, without gradients: less than an update.
    The constants are usual figures; no GPU has confirmed them yet.

    Args:
        shape: the model.
        work: how it is trained.
        gpu_bytes: memory of one GPU, of which vLLM takes its share.
    """
    total, layer = shape.num_parameters, shape.num_layer_parameters
    adapters = shape.num_adapter_parameters(work.lora_rank)
    weights = 4 * (total + adapters) // work.num_shards
    trained = adapters if work.lora_rank else total
    states = weights + 12 * trained // work.num_shards
    gathered = 2 * (shape.num_embedding_parameters + 2 * layer) + (0 if work.lora_rank else 6 * layer)
    inputs = 2 * work.max_tokens * shape.hidden_size * shape.num_hidden_layers
    inside = _layer_bytes(shape, work.max_tokens)
    activations = inputs + 2 * inside if work.gradient_checkpointing else (shape.num_hidden_layers + 1) * inside
    per_logit = _LOGIT_BYTES_ENTROPY if work.entropy_gradient else _LOGIT_BYTES
    logits = per_logit * work.max_tokens * shape.vocab_size
    resident = (0 if work.offload_parameters else weights) + (
        0 if work.offload_optimizer else 8 * trained // work.num_shards
    )
    largest = 4 * shape.vocab_size * shape.hidden_size
    return MemoryEstimate(
        states=states,
        gathered=gathered,
        activations=activations,
        logits=logits,
        update=round(_FRAGMENTATION * (states + gathered + activations + logits)) + _CONTEXT + _ASLEEP,
        sync=weights + 2 * total // work.engine_shards + largest + _BUCKET + _CONTEXT + _ASLEEP,
        rollout=round(work.engine_share * gpu_bytes) + _CONTEXT + resident,
    )


def _layer_bytes(shape: ModelShape, num_tokens: int) -> int:
    """Return what the backward pass of one decoder layer keeps of its forward pass.

    Flash attention keeps no score matrix. In bfloat16: the two norms' outputs, attention's output before and after
    its projection and the residual between (5h), queries, keys and values; in the MLP gate, up, the activation and
    the product (4 x inner width). In float32: the norms' inputs (2h).
    """
    queries = shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    halves = 5 * shape.hidden_size + queries + 2 * keys + 4 * shape.intermediate_size
    return num_tokens * (2 * halves + 4 * 2 * shape.hidden_size)


def checkpoint_bytes(shape: ModelShape, *, lora_rank: int, contents: list[str]) -> int:
    """Return the size of one checkpoint of verl's on disk.

    Float32 parameters (``model``, adapters included), AdamW's two float32 moments of what is trained
    (``optimizer``), and a copy in Hugging Face's format (``hf_model``), written from the float32 parameters.
    """
    adapters = shape.num_adapter_parameters(lora_rank)
    trained = adapters if lora_rank else shape.num_parameters
    sizes = {
        "model": 4 * (shape.num_parameters + adapters),
        "optimizer": 8 * trained,
        "hf_model": 4 * (shape.num_parameters + adapters),
    }
    return sum(sizes.get(name, 0) for name in contents)
