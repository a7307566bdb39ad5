"""Written episodes for the cold start; a share of them is sloppy, so that the policy starts out fallible."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from lab.retriever import OverlapSearcher
from lab.vocabulary import WordTokenizer, prompt_text
from lab.world import RELATIONS, Fact, World
from verl_llds.search.documents import Document, format_documents
from verl_llds.search.search_r1 import format_observation

SEARCH_THOUGHT = ("i", "must", "look", "this", "up", "now")
ANSWER_THOUGHT = ("it", "says", "so", "the", "answer", "is")


class Slip(str, Enum):
    """What a sloppy demonstration does wrong."""

    WRONG_RELATION = "wrong_relation"
    """Searches for another relation of the entity."""
    WRONG_ENTITY = "wrong_entity"
    """Searches for another entity."""
    WRONG_PASSAGE = "wrong_passage"
    """Answers from a passage about something else."""
    NO_SEARCH = "no_search"
    """Answers without having searched."""
    MALFORMED_QUERY = "malformed_query"
    """Leaves a part of the query out."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One demonstration as ids."""

    ids: list[int]
    """Prompt, turns and observations."""
    policy: list[bool]
    """True on the tokens of the policy's turns."""


class Demonstrator:
    """Writes demonstrations of a world, an endless sequence fixed by the seed."""

    def __init__(
        self,
        world: World,
        searcher: OverlapSearcher,
        tokenizer: WordTokenizer,
        *,
        sloppy: float,
        variety: float,
        seed: int,
    ) -> None:
        self._world, self._searcher, self._tokenizer = world, searcher, tokenizer
        self._sloppy, self._variety = sloppy, variety
        self._rng = random.Random(seed)

    def write(self) -> Encoded:
        """Return the next demonstration."""
        fact = self._rng.choice(self._world.facts)
        slip = self._rng.choice(list(Slip)) if self._rng.random() < self._sloppy else None
        documents: Sequence[Document] = ()
        pieces = [(prompt_text(fact.query), False)]
        if slip is not Slip.NO_SEARCH:
            query = self._query(fact, slip)
            documents = asyncio.run(self._searcher.search(query)).documents
            pieces.append((self._turn(SEARCH_THOUGHT, "search", query), True))
            pieces.append((format_observation(format_documents(documents)), False))
        pieces.append((self._turn(ANSWER_THOUGHT, "answer", self._answer(fact, slip, documents)), True))
        return self._encoded(pieces)

    def _query(self, fact: Fact, slip: Slip | None) -> str:
        if slip is Slip.WRONG_RELATION:
            return f"{self._rng.choice(RELATIONS)} {fact.entity}"
        if slip is Slip.WRONG_ENTITY:
            return f"{fact.relation} {self._rng.choice(self._world.entities)}"
        if slip is Slip.MALFORMED_QUERY:
            words = fact.query.split()
            words.pop(self._rng.randrange(3))
            return " ".join(words)
        return fact.query

    def _answer(self, fact: Fact, slip: Slip | None, documents: Sequence[Document]) -> str:
        """Return what a passage about the fact says; if there is none, or by mistake, what any passage says."""
        texts = [document.contents.partition("\n")[2] for document in documents]
        told = [text for text in texts if text.startswith(f"{fact.relation} ")]
        readable = texts if slip is Slip.WRONG_PASSAGE else told or texts
        if not readable:
            return self._rng.choice(self._world.entities)
        return self._rng.choice(readable).partition(" ")[2]

    def _turn(self, thought: Sequence[str], tag: str, content: str) -> str:
        words = [self._rng.choice(thought) if self._rng.random() < self._variety else word for word in thought]
        return f"<think> {' '.join(words)} </think> <{tag}> {content} </{tag}>"

    def _encoded(self, pieces: Sequence[tuple[str, bool]]) -> Encoded:
        result = Encoded([], [])
        for text, policy in pieces:
            ids = self._tokenizer.encode(text)
            result.ids.extend(ids)
            result.policy.extend([policy] * len(ids))
        return result
