"""Supervised training of the lab's policy on demonstrations, cached by its settings."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm
from transformers import Qwen2ForCausalLM

from lab.demonstrations import Demonstrator, Encoded
from lab.policy import PolicySettings, make_policy
from lab.retriever import OverlapSearcher
from lab.vocabulary import WordTokenizer
from lab.world import WorldSettings, make_world


@dataclass(frozen=True, kw_only=True, slots=True)
class ColdStartSettings:
    """How the policy is trained before reinforcement learning starts."""

    world: WorldSettings = field(default_factory=WorldSettings)
    """The world it reads about."""
    policy: PolicySettings = field(default_factory=PolicySettings)
    """The model."""
    steps: int = 900
    """Optimizer steps."""
    rows: int = 64
    """Demonstrations a step."""
    sloppy: float = 0.3
    """Share of demonstrations with a mistake in them."""
    variety: float = 0.04
    """Share of thought words that are drawn at random; it sets the entropy of the policy."""
    matrix_rate: float = 0.01
    """Peak learning rate of Muon, which trains the matrices: copying sets in earlier than with AdamW."""
    other_rate: float = 0.006
    """Peak learning rate of AdamW, which trains embeddings, norms and biases."""
    warmup_steps: int = 20
    """Steps of linear warm-up before the cosine."""
    final_rate_share: float = 0.03
    """Learning rate at the end, as a share of the peak."""
    context_weight: float = 0.1
    """Weight of the loss on prompt and observation tokens; 1 is that of the policy's own."""
    seed: int = 0
    """Seed of the weights and of the demonstrations."""


def fingerprint(settings: ColdStartSettings) -> str:
    """Return a short name that changes with any setting."""
    return hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode()).hexdigest()[:12]


def cold_start(settings: ColdStartSettings, directory: Path) -> Qwen2ForCausalLM:
    """Return the trained policy, from ``directory`` if it was made before."""
    path = directory / f"policy-{fingerprint(settings)}.pt"
    model = make_policy(settings.policy, len(WordTokenizer()), settings.seed)
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model
    _train(model, settings)
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    torch.save(model.state_dict(), unfinished)
    unfinished.replace(path)
    return model


def _train(model: Qwen2ForCausalLM, settings: ColdStartSettings) -> None:
    tokenizer = WordTokenizer()
    world = make_world(settings.world)
    demonstrator = Demonstrator(
        world,
        OverlapSearcher(world.passages(), topk=3),
        tokenizer,
        sloppy=settings.sloppy,
        variety=settings.variety,
        seed=settings.seed,
    )
    optimizers = _optimizers(model, settings)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings)) for optimizer in optimizers
    ]
    with tqdm(total=settings.steps, desc="cold start", unit="step") as bar:
        for _ in range(settings.steps):
            rows = [demonstrator.write() for _ in range(settings.rows)]
            loss = _loss(model, rows, settings.context_weight)
            model.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def _optimizers(model: Qwen2ForCausalLM, settings: ColdStartSettings) -> list[torch.optim.Optimizer]:
    embedding = model.get_input_embeddings().weight
    matrices = [weight for weight in model.parameters() if weight.ndim == 2 and weight is not embedding]
    others = [weight for weight in model.parameters() if weight.ndim != 2 or weight is embedding]
    return [
        torch.optim.Muon(matrices, lr=settings.matrix_rate, momentum=0.95, weight_decay=0.0),
        torch.optim.AdamW(others, lr=settings.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _rate(step: int, settings: ColdStartSettings) -> float:
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    floor = settings.final_rate_share
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _loss(model: Any, rows: Sequence[Encoded], context_weight: float) -> Tensor:
    """Return the mean loss of the policy's tokens plus a weighted share of that of the others."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    weights = torch.zeros(len(rows), longest)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        weights[number, : len(row.ids)] = torch.tensor([1.0 if own else context_weight for own in row.policy])
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    losses = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    weights = weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()
