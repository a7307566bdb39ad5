"""The lab's world: entities, facts about them, and passages that partly contradict each other.

An ambiguous fact has two passages with two values, and only one value counts as right. No policy can tell which,
so about half of such answers are wrong however well it reads: groups of rollouts stay mixed, and the advantages
do not vanish.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product

from verl_llds.search.documents import Document

RELATIONS = ("mentor", "rival", "friend", "partner", "pupil", "neighbour", "cousin", "editor")

_FIRST_ONSETS, _FIRST_ENDS = ("b", "d", "f", "k", "l", "m"), ("ada", "elo", "iri", "ona", "umi", "esk")
_LAST_ONSETS, _LAST_ENDS = ("gr", "st", "tr", "pl", "sk", "br"), ("ande", "erro", "ival", "olm", "unt", "yde")

FIRST_NAMES = tuple(onset + end for onset, end in product(_FIRST_ONSETS, _FIRST_ENDS))
LAST_NAMES = tuple(onset + end for onset, end in product(_LAST_ONSETS, _LAST_ENDS))


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldSettings:
    """Size of the world and how much of it is contradictory."""

    num_entities: int = 400
    """Entities, each a first and a last name."""
    ambiguous: float = 0.5
    """Share of the facts that a second passage contradicts."""
    seed: int = 0
    """Seed of everything random in the world."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One relation of one entity, as the question has it."""

    relation: str
    """One of `RELATIONS`."""
    entity: str
    """First and last name."""
    value: str
    """The name that counts as right."""
    rival: str | None
    """The name that a contradicting passage gives, if there is one."""

    @property
    def query(self) -> str:
        """The search that finds the fact."""
        return f"{self.relation} {self.entity}"


@dataclass(frozen=True, slots=True)
class World:
    """All facts, in a fixed order."""

    settings: WorldSettings
    """What it was made from."""
    entities: tuple[str, ...]
    """All names."""
    facts: tuple[Fact, ...]
    """One for each entity and relation."""

    def passages(self) -> list[Document]:
        """Return one passage a claim, in an order that says nothing about which claim is right."""
        claims = [
            (fact.entity, f"{fact.relation} {value}")
            for fact in self.facts
            for value in (fact.value, fact.rival)
            if value is not None
        ]
        random.Random(self.settings.seed + 1).shuffle(claims)
        return [Document(str(number), f"{title}\n{text}") for number, (title, text) in enumerate(claims)]


def make_world(settings: WorldSettings) -> World:
    """Return the world of these settings, the same one every time."""
    rng = random.Random(settings.seed)
    names = [f"{first} {last}" for first, last in product(FIRST_NAMES, LAST_NAMES)]
    entities = rng.sample(names, settings.num_entities)
    facts = []
    for entity in entities:
        for relation in RELATIONS:
            value, rival = rng.sample(entities, 2)
            facts.append(Fact(relation, entity, value, rival if rng.random() < settings.ambiguous else None))
    return World(settings, tuple(entities), tuple(facts))
