"""Supervised training of the tiny policy on written trajectories, in minutes on two cores."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from demonstrations import Demonstrator
from torch.nn import functional
from tqdm import tqdm
from trajectories import Encoded, encode_trajectories
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from retriever_server.precision import has_fast_bf16

# Trajectories written at a time, to be sorted by length.
_DEMONSTRATIONS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSettings:
    """Shape of the policy, a Qwen2 in small."""

    hidden_size: int = 128
    """Width."""
    intermediate_size: int = 256
    """Width of the feed-forward layers; copying needs little of them."""
    num_layers: int = 3
    """Depth; two layers can copy, the third picks the right passage."""
    embedding_std: float = 0.08
    """Spread of the fresh embeddings; far apart from the start, tokens are sooner told apart and copied."""
    num_heads: int = 4
    """Attention heads of 32, the smallest head vLLM's CPU attention takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSettings:
    """How a policy is trained on demonstrations."""

    steps: int = 900
    """Optimizer steps."""
    tokens_per_step: int = 4096
    """Tokens in a step, padding included."""
    micro_batches: int = 1
    """Batches of like length in a step: with one, a step has long trajectories or short ones and never both."""
    max_grad_norm: float = 1.0
    """Norm at which gradients are clipped; those of rare, surprising trajectories are the largest."""
    warmup_steps: int = 20
    """Steps of linear warm-up before the cosine."""
    final_rate_share: float = 0.03
    """Learning rate at the end, as a share of the peak."""
    drill_share: float = 0.3
    """First share of the steps, with one passage an observation: copying is learned on short texts."""
    seed: int = 0
    """Seed of the weights and of the demonstrations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ColdStartSettings(TrainingSettings):
    """How the tiny policy is trained from fresh weights."""

    matrix_rate: float = 0.01
    """Peak learning rate of Muon, which trains the matrices: copying sets in earlier than with AdamW."""
    other_rate: float = 0.006
    """Peak learning rate of AdamW, which trains embeddings, norms and biases."""


def make_model(settings: ModelSettings, tokenizer: PreTrainedTokenizerBase, seed: int) -> Qwen2ForCausalLM:
    """Return the policy with fresh weights."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        num_key_value_heads=settings.num_heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = Qwen2ForCausalLM(config)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=settings.embedding_std)
    return model


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    demonstrator: Demonstrator,
    settings: TrainingSettings,
    optimizers: Sequence[torch.optim.Optimizer],
) -> list[float]:
    """Train in place, on the model's device, and return the loss of every step."""
    # The weights stay in float32; the products run in bfloat16 where that is faster: without the instructions a CPU
    # takes ten times as long.
    fast = model.device.type != "cpu" or has_fast_bf16()
    products = torch.autocast(model.device.type, torch.bfloat16, enabled=fast)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings)) for optimizer in optimizers
    ]
    losses: list[float] = []
    model.train()
    with tqdm(total=settings.steps, desc="cold start", unit="step") as bar:
        for batch in batches(demonstrator, tokenizer, settings):
            model.zero_grad(set_to_none=True)
            losses.append(accumulate(model, batch, products))
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                with nullcontext() if fast else muon_in_float32():
                    optimizer.step()
                schedule.step()
            bar.update()
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    model.eval()
    return losses


def accumulate(
    model: PreTrainedModel, batch: Sequence[Sequence[Encoded]], products: AbstractContextManager[object]
) -> float:
    """Add the gradient of a step's micro-batches and return the mean loss of all their tokens."""
    sizes = [sum(sum(one.policy) for one in micro_batch) for micro_batch in batch]
    total = 0.0
    for micro_batch, size in zip(batch, sizes, strict=True):
        with products:
            loss = batch_loss(model, micro_batch) * (size / sum(sizes))
        torch.autograd.backward(loss)
        total += loss.item()
    return total


def make_optimizers(model: PreTrainedModel, settings: ColdStartSettings) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices and AdamW for the rest."""
    embedding = model.get_input_embeddings().weight
    matrices = [weight for weight in model.parameters() if weight.ndim == 2 and weight is not embedding]
    others = [weight for weight in model.parameters() if weight.ndim != 2 or weight is embedding]
    return [
        torch.optim.Muon(matrices, lr=settings.matrix_rate, momentum=0.95, weight_decay=0.0),
        torch.optim.AdamW(others, lr=settings.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


@contextmanager
def muon_in_float32() -> Iterator[None]:
    """Keep torch's Muon from converting to bfloat16, which it does whatever the machine is fast at."""
    convert = torch.Tensor.bfloat16
    # A copy, as the conversion makes one: Muon goes on in place.
    torch.Tensor.bfloat16 = torch.Tensor.clone
    try:
        yield
    finally:
        torch.Tensor.bfloat16 = convert


def _rate(step: int, settings: TrainingSettings) -> float:
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    floor = settings.final_rate_share
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def batches(
    demonstrator: Demonstrator, tokenizer: PreTrainedTokenizerBase, settings: TrainingSettings
) -> Iterator[list[list[Encoded]]]:
    """Yield the micro-batches of a step: trajectories of similar length each, filled up to the token budget.

    Raises:
        ValueError: The budget is so large that there are never enough for a step.
    """
    budget = settings.tokens_per_step // settings.micro_batches
    rng = random.Random(settings.seed)
    steps_left = settings.steps
    while steps_left:
        drilling = settings.steps - steps_left < settings.drill_share * settings.steps
        written = [demonstrator.write(num_documents=1 if drilling else None) for _ in range(_DEMONSTRATIONS)]
        encoded = sorted(encode_trajectories(tokenizer, written), key=lambda one: len(one.ids))
        chunk: list[list[Encoded]] = [[]]
        for one in encoded:
            # Sorted: the newest is the longest, and the others are padded to it.
            if len(one.ids) * (len(chunk[-1]) + 1) > budget:
                chunk.append([])
            chunk[-1].append(one)
        if len(chunk) < settings.micro_batches:
            raise ValueError(
                f"{_DEMONSTRATIONS} demonstrations fill {len(chunk)} micro-batches of {budget} tokens, a step needs "
                f"{settings.micro_batches}; make tokens_per_step ({settings.tokens_per_step}) smaller."
            )
        rng.shuffle(chunk)
        for start in range(0, len(chunk) - settings.micro_batches + 1, settings.micro_batches):
            if steps_left:
                steps_left -= 1
                yield chunk[start : start + settings.micro_batches]


def batch_loss(model: PreTrainedModel, batch: Sequence[Encoded]) -> torch.Tensor:
    """Return the mean loss of the policy's tokens; logits are made for no other."""
    longest = max(len(one.ids) for one in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    own = torch.zeros(len(batch), longest, dtype=torch.bool)
    for row, one in enumerate(batch):
        ids[row, : len(one.ids)] = torch.tensor(one.ids)
        own[row, : len(one.ids)] = torch.tensor(one.policy)
    ids, own = ids.to(model.device), own.to(model.device)
    # Padding is on the right: a causal model needs no mask to ignore it.
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
    logits = model.lm_head(hidden[own[:, 1:]])
    return functional.cross_entropy(logits.float(), ids[:, 1:][own[:, 1:]])
