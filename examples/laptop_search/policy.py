"""From a world to a policy directory: tokenizer, demonstrations, cold start, saved weights."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cold_start import ColdStartSettings, ModelSettings, make_model, make_optimizers, train
from demonstrations import DemonstrationSettings, Demonstrator
from relations import RELATIONS
from trajectories import prompt_text
from transformers import PreTrainedTokenizerFast
from vocabulary import save_tokenizer, train_tokenizer
from world import World

from verl_llds.search.documents import Document, format_documents
from verl_llds.search.search_r1 import format_observation


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicySettings:
    """Everything that shapes the policy."""

    vocab_size: int = 8192
    """Tokens; most of the world's names are one or two of them."""
    model: ModelSettings = field(default_factory=ModelSettings)
    """Shape of the network."""
    demonstrations: DemonstrationSettings = field(default_factory=DemonstrationSettings)
    """What it is shown."""
    cold_start: ColdStartSettings = field(default_factory=ColdStartSettings)
    """How it is trained."""


def make_tokenizer(world: World, settings: PolicySettings) -> PreTrainedTokenizerFast:
    """Train the tokenizer on the passages, the names in them and the protocol's own text."""
    passages = world.passages()
    texts = [format_documents([passage]) for passage in passages]
    # Often, so that merges go to the names: a name in one token is copied in one step.
    texts += [f" {name}" for fact in world.facts for name in (fact.subject, fact.value)] * 10
    for relation in RELATIONS.values():
        protocol = (
            f"<think> I need the {relation.thing}. </think> <search> {relation.query} </search> "
            f"<answer> x </answer>{format_observation('')}"
        )
        texts += [protocol, *relation.questions, relation.bridge] * 100
    untrained = train_tokenizer(texts, vocab_size=512)
    texts += [prompt_text(untrained, "What is it?")] * 100
    return train_tokenizer(texts, settings.vocab_size)


def make_demonstrator(
    world: World,
    tokenizer: PreTrainedTokenizerFast,
    settings: DemonstrationSettings,
    seed: int,
    fillers: Sequence[Document] = (),
) -> Demonstrator:
    """Give the demonstrations names, random name pieces and second sentences, but no fact."""
    names: dict[str, set[str]] = defaultdict(set)
    extras: dict[str, set[str]] = defaultdict(set)
    for fact in world.facts:
        relation = world.relations[fact.relation]
        names[relation.subject_kind].add(fact.subject)
        names[relation.name].add(fact.value)
        extras[relation.name].add(fact.extra)
    texts = (tokenizer.decode([token]) for token in range(len(tokenizer)))
    pieces = sorted(text for text in texts if re.fullmatch(r" ?[A-Za-z0-9]+", text))
    return Demonstrator(
        {kind: sorted(members) for kind, members in names.items()},
        pieces,
        {name: sorted(members) for name, members in extras.items()},
        settings,
        random.Random(seed),
        relations=world.relations,
        fillers=fillers,
    )


def write_policy(world: World, directory: Path, settings: PolicySettings) -> list[float]:
    """Make tokenizer and weights, save them in Hugging Face's layout and return the losses."""
    tokenizer = make_tokenizer(world, settings)
    model = make_model(settings.model, tokenizer, settings.cold_start.seed)
    demonstrator = make_demonstrator(world, tokenizer, settings.demonstrations, settings.cold_start.seed)
    losses = train(model, tokenizer, demonstrator, settings.cold_start, make_optimizers(model, settings.cold_start))
    save_tokenizer(tokenizer, directory)
    model.save_pretrained(str(directory))
    (directory / "losses.json").write_text(json.dumps([round(loss, 4) for loss in losses]) + "\n")
    return losses
