"""Questions over the facts, split so that no held-out fact is ever asked about in training.

The split is drawn over groups of facts: everything said about one city, peak or element stays together, while
a country's facts are drawn one by one (a country is a bridge and must appear on both sides). A two-hop
question takes both of its facts from its own side.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from facts import Fact
from relations import RELATIONS, TWO_HOP_QUESTIONS, Relation, bridge_relations, country_relations


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionSettings:
    """How many questions, and of what kind."""

    num_train_one_hop: int = 1200
    """Single-hop training questions."""
    num_train_two_hop: int = 1200
    """Two-hop training questions."""
    num_test_one_hop: int = 150
    """Held-out single-hop questions."""
    num_test_two_hop: int = 150
    """Held-out two-hop questions."""
    held_out_share: float = 0.25
    """Share of the fact groups kept for held-out questions."""
    city_share: float = 0.35
    """Share of the single-hop questions about cities, of which the world has most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One question with the facts that answer it, first hop first."""

    text: str
    """The question."""
    facts: tuple[Fact, ...]
    """One fact a hop."""

    @property
    def answers(self) -> list[str]:
        """Every answer that counts as right; the passage's own wording first."""
        final = self.facts[-1]
        return list(dict.fromkeys((final.value, *final.aliases)))

    @property
    def num_hops(self) -> int:
        """Searches an honest answer needs."""
        return len(self.facts)


def make_questions(
    facts: Sequence[Fact],
    settings: QuestionSettings,
    rng: random.Random,
    relations: Mapping[str, Relation] = RELATIONS,
) -> tuple[list[Question], list[Question]]:
    """Return shuffled training and held-out questions."""
    train_facts, test_facts = split_facts(facts, settings.held_out_share, rng, relations)
    train = _one_hop(train_facts, settings.num_train_one_hop, settings.city_share, rng, relations)
    train += _two_hop(train_facts, settings.num_train_two_hop, rng, relations)
    test = _one_hop(test_facts, settings.num_test_one_hop, settings.city_share, rng, relations)
    test += _two_hop(test_facts, settings.num_test_two_hop, rng, relations)
    rng.shuffle(train)
    rng.shuffle(test)
    return train, test


def split_facts(
    facts: Iterable[Fact], held_out_share: float, rng: random.Random, relations: Mapping[str, Relation]
) -> tuple[list[Fact], list[Fact]]:
    """Draw whole groups for the held-out side until each relation's share is reached on average."""
    groups: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        groups[_group(fact, relations)].append(fact)
    train: list[Fact] = []
    test: list[Fact] = []
    for members in groups.values():
        (test if rng.random() < held_out_share else train).extend(members)
    return train, test


def _group(fact: Fact, relations: Mapping[str, Relation]) -> str:
    if fact.relation == "highest_point":
        # The passage about the peak holds the same knowledge.
        return f"peak/{fact.value}"
    if relations[fact.relation].subject_kind == "country":
        return fact.key
    return f"{relations[fact.relation].subject_kind}/{fact.subject}"


def _one_hop(
    facts: Sequence[Fact], count: int, city_share: float, rng: random.Random, relations: Mapping[str, Relation]
) -> list[Question]:
    cities = [fact for fact in facts if fact.relation == "city_country"]
    others = [fact for fact in facts if fact.relation != "city_country"]
    num_cities = min(len(cities), round(count * city_share))
    chosen = rng.sample(cities, num_cities) + rng.sample(others, min(len(others), count - num_cities))
    return [
        Question(text=rng.choice(relations[fact.relation].questions).format(s=fact.subject), facts=(fact,))
        for fact in chosen
    ]


def _two_hop(
    facts: Sequence[Fact], count: int, rng: random.Random, relations: Mapping[str, Relation]
) -> list[Question]:
    second = {relation.name for relation in country_relations(relations)}
    finals: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        if fact.relation in second:
            finals[fact.subject].append(fact)
    bridges = [
        [fact for fact in facts if fact.relation == relation.name and finals[fact.value]]
        for relation in bridge_relations(relations)
    ]
    # Cities are most of the bridges: weights by the root of the count keep peaks and elements in sight.
    weights = [len(members) ** 0.5 for members in bridges]
    questions: dict[tuple[str, str], Question] = {}
    while len(questions) < count:
        bridge = rng.choice(rng.choices(bridges, weights)[0])
        final = rng.choice(finals[bridge.value])
        if bridge.relation == "peak_country" and final.relation == "highest_point":
            continue
        clause = relations[bridge.relation].bridge.format(s=bridge.subject)
        text = rng.choice(TWO_HOP_QUESTIONS).format(thing=relations[final.relation].thing, bridge=clause)
        questions.setdefault((bridge.key, final.key), Question(text=text, facts=(bridge, final)))
    return list(questions.values())
