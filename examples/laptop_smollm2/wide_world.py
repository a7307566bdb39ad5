"""The wide world: the small world's facts among the whole Factbook in prose and every name in WordNet."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from facts import load_facts
from people import person_facts, person_relations, read_nations
from prose import prose_passages
from questions import QuestionSettings, make_questions
from relations import RELATIONS
from wordnet import Instance, read_instances
from world import World, check_world, document_of

from verl_llds.search.documents import Document


@dataclass(frozen=True, kw_only=True, slots=True)
class WideWorldSettings:
    """What the wide world depends on."""

    seed: int = 0
    """Seed of the split and the wording."""
    questions: QuestionSettings = field(
        default_factory=lambda: QuestionSettings(
            num_train_one_hop=1600, num_train_two_hop=1600, num_test_one_hop=100, num_test_two_hop=100, city_share=0.25
        )
    )
    """How many questions of each kind; two evaluations of 200 are a fifth of the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WideWorld(World):
    """A world whose people share their passages with WordNet's other names, beside prose that nobody asks about."""

    instances: tuple[Instance, ...]
    """WordNet's named things."""
    prose: tuple[Document, ...]
    """The Factbook in prose."""

    def passage_ids(self) -> dict[str, str]:
        """Map a fact's key to the id of its passage; both facts of a person lie in one."""
        people = {instance.name: f"wordnet-{number}" for number, instance in enumerate(self.instances)}
        ids = {}
        for number, fact in enumerate(self.facts):
            is_person = self.relations[fact.relation].subject_kind == "person"
            ids[fact.key] = people[fact.subject] if is_person else f"fact-{number}"
        return ids

    def passages(self) -> list[Document]:
        """Return the facts' passages, the glosses, the prose."""
        ids = self.passage_ids()
        stated = [fact for fact in self.facts if self.relations[fact.relation].subject_kind != "person"]
        glosses = [
            Document(id=f"wordnet-{number}", contents=f"{instance.name}\n{instance.gloss}.")
            for number, instance in enumerate(self.instances)
        ]
        return [*(document_of(fact, ids[fact.key], self.relations) for fact in stated), *glosses, *self.prose]


def make_wide_world(settings: WideWorldSettings) -> WideWorld:
    """Load all sources, ask the questions and check that their passages hold the answers.

    Raises:
        FileNotFoundError: WordNet's package is not installed.
    """
    rng = random.Random(settings.seed)
    facts = load_facts()
    nations = read_nations(facts)
    relations = RELATIONS | {relation.name: relation for relation in person_relations(nations)}
    instances = read_instances()
    facts += person_facts(instances, nations)
    rng.shuffle(facts)
    train, test = make_questions(facts, settings.questions, rng, relations)
    world = WideWorld(
        facts=tuple(facts),
        train=tuple(train),
        test=tuple(test),
        relations=relations,
        instances=tuple(instances),
        prose=tuple(prose_passages()),
    )
    check_world(world)
    return world
