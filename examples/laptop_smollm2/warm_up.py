"""A short supervised warm-up: the pretrained model learns the protocol from made-up demonstrations, still lazily.

Without it SmolLM2-135M-Instruct never writes a tag, so no trajectory would earn a reward. The demonstrations are
the small example's: invented facts, and two-hop questions that are mostly answered one search too early.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from cold_start import TrainingSettings, train
from demonstrations import DemonstrationSettings
from policy import make_demonstrator
from transformers import AutoModelForCausalLM, AutoTokenizer
from wide_world import WideWorld

from verl_llds.search.documents import Document


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmUpSettings:
    """Everything that shapes the warm-up."""

    demonstrations: DemonstrationSettings = field(
        default_factory=lambda: DemonstrationSettings(lazy_share=0.6, random_name_share=0.15, filler_share=0.3)
    )
    """What the model is shown: fewer names that do not exist, which a pretrained model reads badly, and real prose."""
    training: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(
            steps=45,
            tokens_per_step=2048,
            micro_batches=4,
            max_grad_norm=10.0,
            warmup_steps=5,
            final_rate_share=0.1,
            drill_share=0.0,
        )
    )
    """Enough for the protocol and for most of the reading.

    Every step has long trajectories and short ones, and gradients are hardly cut: meant to teach the rarer second
    search, though neither was tried alone. No drill on single passages: a pretrained model can copy, and after one it
    reads the last passage.
    """
    rate: float = 2e-4
    """Peak learning rate of AdamW."""


def fillers(world: WideWorld) -> Sequence[Document]:
    """Return the passages of which none answers a question: the prose, and the glosses of those not asked about."""
    asked = {fact.subject for fact in world.facts}
    others = [instance for instance in world.instances if instance.name not in asked]
    return [*world.prose, *(Document(id="", contents=f"{one.name}\n{one.gloss}.") for one in others)]


def write_policy(model_directory: Path, world: WideWorld, directory: Path, settings: WarmUpSettings) -> list[float]:
    """Warm the model up, save it beside its tokenizer in Hugging Face's layout and return the losses."""
    seed = settings.training.seed
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(model_directory)
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=torch.float32)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    demonstrator = make_demonstrator(world, tokenizer, settings.demonstrations, seed, fillers(world))
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.rate, betas=(0.9, 0.98), weight_decay=0.0)
    losses = train(model, tokenizer, demonstrator, settings.training, [optimizer])
    # Half the size on disk; the trainer keeps its own float32 copy.
    model.to(torch.bfloat16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "losses.json").write_text(json.dumps([round(loss, 4) for loss in losses]) + "\n")
    return losses
