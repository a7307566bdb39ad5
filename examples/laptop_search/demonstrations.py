"""Written trajectories to start from: lazy on purpose, about facts that do not exist.

Every demonstration is set in a small world of its own. Its names are drawn from the real world's names or put
together from random tokens, and its facts are made up on the spot, so a policy that memorises gains nothing
and the one thing worth learning is to copy: from the question to the query, from the passage to the answer.

Two-hop questions are mostly answered after one search, with the country in between. That is what
reinforcement learning is to mend.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from relations import RELATIONS, TWO_HOP_QUESTIONS, Relation, bridge_relations, country_relations
from trajectories import Trajectory, answer_turn, search_turn

from verl_llds.search.documents import Document


@dataclass(frozen=True, kw_only=True, slots=True)
class DemonstrationSettings:
    """How the demonstrations behave."""

    two_hop_share: float = 0.5
    """Share of two-hop questions."""
    lazy_share: float = 0.67
    """Share of two-hop demonstrations that stop after one search and answer with the country in between."""
    sloppy_share: float = 0.06
    """Share of turns that search for the wrong thing or read the wrong passage."""
    gold_first_share: float = 0.75
    """Share of observations whose first passage is the right one; elsewhere the order is random."""
    gold_missing_share: float = 0.04
    """Share of observations without the right passage."""
    random_name_share: float = 0.35
    """Share of names put together from random tokens instead of taken from the world."""
    filler_share: float = 0.0
    """Share of the passages not to be read that come from the corpus instead of being made up."""
    num_documents: int = 3
    """Passages in an observation, as many as the retriever returns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _MadeUp:
    relation: Relation
    subject: str
    value: str

    @property
    def statement(self) -> str:
        return self.relation.statement.format(s=self.subject, o=self.value)

    @property
    def query(self) -> str:
        return self.relation.query.format(s=self.subject)


class Demonstrator:
    """Writes trajectories; one random source, so one order."""

    def __init__(
        self,
        names: Mapping[str, Sequence[str]],
        pieces: Sequence[str],
        extras: Mapping[str, Sequence[str]],
        settings: DemonstrationSettings,
        rng: random.Random,
        *,
        relations: Mapping[str, Relation] = RELATIONS,
        fillers: Sequence[Document] = (),
    ) -> None:
        """Take what demonstrations are made of.

        Args:
            names: by kind of subject, and by relation for values.
            pieces: texts of tokens, for names that do not exist.
            extras: what passages are completed with, by relation.
            settings: how the demonstrations behave.
            rng: the one random source.
            relations: what the made-up facts are instances of, by name.
            fillers: passages of the corpus, for ``filler_share``.
        """
        self._names = names
        self._pieces = pieces
        self._extras = extras
        self._relations = relations
        self._fillers = fillers
        self._bridges = bridge_relations(relations)
        self._of_countries = country_relations(relations)
        self._settings = settings
        self._rng = rng

    def write(self, *, num_documents: int | None = None, two_hop: bool | None = None) -> Trajectory:
        """Write one trajectory; the arguments override the settings for a drill."""
        documents = num_documents or self._settings.num_documents
        if two_hop is None:
            two_hop = self._chance(self._settings.two_hop_share)
        return self._two_hop(documents) if two_hop else self._one_hop(documents)

    def _one_hop(self, documents: int) -> Trajectory:
        fact = self._make_up(self._any_relation())
        question = self._rng.choice(fact.relation.questions).format(s=fact.subject)
        searched = self._maybe_wrong(fact)
        shown, read = self._observe(searched, documents)
        return Trajectory(
            question=question,
            turns=(
                search_turn(f"I need the {searched.relation.thing}.", searched.query),
                answer_turn(f"{read.statement}.", read.value),
            ),
            observations=(shown,),
        )

    def _two_hop(self, documents: int) -> Trajectory:
        bridge = self._make_up(self._rng.choices(self._bridges, [bridge.bridge_weight for bridge in self._bridges])[0])
        second = self._rng.choice(self._of_countries)
        clause = bridge.relation.bridge.format(s=bridge.subject)
        question = self._rng.choice(TWO_HOP_QUESTIONS).format(thing=second.thing, bridge=clause)
        shown, read = self._observe(bridge, documents)
        first = search_turn(f"I need the {bridge.relation.thing}.", bridge.query)
        if self._chance(self._settings.lazy_share):
            turns = (first, answer_turn(f"{read.statement}.", read.value))
            return Trajectory(question=question, turns=turns, observations=(shown,))
        final = self._maybe_wrong(self._make_up(second, subject=read.value))
        shown_final, read_final = self._observe(final, documents)
        return Trajectory(
            question=question,
            turns=(
                first,
                search_turn(f"{read.statement}.", final.query),
                answer_turn(f"{read_final.statement}.", read_final.value),
            ),
            observations=(shown, shown_final),
        )

    def _any_relation(self) -> Relation:
        # Half of the single-hop questions are about places and elements, half about countries.
        if self._chance(0.5):
            return self._rng.choice(self._of_countries)
        return self._rng.choice([r for r in self._relations.values() if r.subject_kind != "country"])

    def _maybe_wrong(self, fact: _MadeUp) -> _MadeUp:
        if not self._chance(self._settings.sloppy_share):
            return fact
        return self._make_up(self._sibling(fact.relation), subject=fact.subject)

    def _sibling(self, relation: Relation) -> Relation:
        """Return a relation of the same kind of subject: another one where there is one."""
        same = [r for r in self._relations.values() if r.subject_kind == relation.subject_kind and r is not relation]
        return self._rng.choice(same) if same else relation

    def _observe(self, fact: _MadeUp, count: int) -> tuple[tuple[Document, ...], _MadeUp]:
        """Return what a search for the fact shows, and which of the shown facts is read."""
        shown = [self._distractor(fact) for _ in range(count - 1)]
        if self._chance(self._settings.gold_missing_share):
            shown.append(self._distractor(fact))
            read = self._rng.choice(shown)
        else:
            position = 0
            if not self._chance(self._settings.gold_first_share):
                position = self._rng.randrange(count)
            shown.insert(position, fact)
            read = self._rng.choice(shown) if self._chance(self._settings.sloppy_share / 2) else fact
        return tuple(self._document(one) if one is read else self._unread(one) for one in shown), read

    def _unread(self, fact: _MadeUp) -> Document:
        """Return the passage of a fact that is shown beside the one read, or one of the corpus in its place."""
        if self._settings.filler_share and self._chance(self._settings.filler_share):
            return self._rng.choice(self._fillers)
        return self._document(fact)

    def _distractor(self, fact: _MadeUp) -> _MadeUp:
        sibling = self._sibling(fact.relation)
        if sibling is not fact.relation and not fact.relation.shares_passage and self._chance(0.5):
            return self._make_up(sibling, subject=fact.subject)
        return self._make_up(fact.relation)

    def _document(self, fact: _MadeUp) -> Document:
        extra = self._rng.choice(self._extras[fact.relation.name])
        text = fact.relation.passage(fact.subject, fact.value, extra)
        return Document(id="", contents=f"{fact.subject}\n{text}")

    def _make_up(self, relation: Relation, subject: str | None = None) -> _MadeUp:
        value_kind = "country" if relation.bridge else relation.name
        return _MadeUp(
            relation=relation,
            subject=subject or self._name(relation.subject_kind),
            value=self._name(value_kind),
        )

    def _name(self, kind: str) -> str:
        if self._chance(self._settings.random_name_share):
            return "".join(self._rng.choices(self._pieces, k=self._rng.choice((1, 1, 2, 2, 3)))).strip()
        return self._rng.choice(self._names[kind])

    def _chance(self, share: float) -> bool:
        return self._rng.random() < share
