"""The laptop's world on disk: a passage per fact, training and held-out questions.

The files are the ones verl and Search-R1 read: ``passages.jsonl`` in Search-R1's corpus format and two
parquet files in verl's schema with Search-R1's columns. The same seed gives the same bytes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from facts import Fact, load_facts
from questions import Question, QuestionSettings, make_questions
from relations import RELATIONS, Relation

from verl_llds.reward.qa import normalize_answer
from verl_llds.search.documents import Document

# Search-R1's own prompt is about 130 words; on a CPU it would cost more than the search it explains.
PROMPT = "Think, <search> if needed, then <answer>. Question: {question}\n"

PASSAGES_FILE = "passages.jsonl"
TRAIN_FILE = "train.parquet"
TEST_FILE = "test.parquet"

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("question", pa.string()),
        ("golden_answers", pa.list_(pa.string())),
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("ability", pa.string()),
        (
            "reward_model",
            pa.struct([("style", pa.string()), ("ground_truth", pa.struct([("target", pa.list_(pa.string()))]))]),
        ),
        (
            "extra_info",
            pa.struct(
                [
                    ("split", pa.string()),
                    ("index", pa.int64()),
                    ("num_hops", pa.int64()),
                    ("gold_passages", pa.list_(pa.string())),
                ]
            ),
        ),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldSettings:
    """What the world depends on."""

    seed: int = 0
    """Seed of the order, the split and the wording."""
    questions: QuestionSettings = field(default_factory=QuestionSettings)
    """How many questions of each kind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Everything there is to know and to ask."""

    facts: tuple[Fact, ...]
    """In passage order."""
    train: tuple[Question, ...]
    """Training questions."""
    test: tuple[Question, ...]
    """Held-out questions, on other facts."""
    relations: Mapping[str, Relation] = field(default_factory=lambda: RELATIONS)
    """What the facts are instances of."""

    def passage_ids(self) -> dict[str, str]:
        """Map a fact's key to the id of its passage."""
        return {fact.key: str(index) for index, fact in enumerate(self.facts)}

    def passages(self) -> list[Document]:
        """One passage a fact: the subject as title, the statement and one more sentence as text."""
        ids = self.passage_ids()
        return [document_of(fact, ids[fact.key], self.relations) for fact in self.facts]


def document_of(fact: Fact, passage_id: str, relations: Mapping[str, Relation]) -> Document:
    """Return the passage that holds a fact."""
    text = relations[fact.relation].passage(fact.subject, fact.value, fact.extra)
    return Document(id=passage_id, contents=f"{fact.subject}\n{text}")


def make_world(settings: WorldSettings) -> World:
    """Load the facts, shuffle them into passage order and ask the questions."""
    rng = random.Random(settings.seed)
    facts = load_facts()
    rng.shuffle(facts)
    train, test = make_questions(facts, settings.questions, rng)
    world = World(facts=tuple(facts), train=tuple(train), test=tuple(test))
    check_world(world)
    return world


def check_world(world: World) -> None:
    """Raise ValueError if a passage lacks its answer or a held-out fact is asked about in training."""
    passages = {passage.id: passage.contents for passage in world.passages()}
    ids = world.passage_ids()
    for question in (*world.train, *world.test):
        for fact in question.facts:
            contents = passages[ids[fact.key]]
            told = normalize_answer(fact.evidence or fact.value)
            if told not in normalize_answer(contents) or not told:
                raise ValueError(f"passage {ids[fact.key]} does not hold the answer to: {question.text}")
    asked = {fact.key for question in world.train for fact in question.facts}
    leaked = sorted({fact.key for question in world.test for fact in question.facts} & asked)
    if leaked:
        raise ValueError(f"held-out facts are asked about in training: {leaked[:5]}")


def write_world(world: World, directory: Path) -> dict[str, int]:
    """Write the three files and return their row counts."""
    ids = world.passage_ids()
    passages = world.passages()
    with (directory / PASSAGES_FILE).open("w", encoding="utf-8", newline="\n") as file:
        for passage in passages:
            file.write(json.dumps({"id": passage.id, "contents": passage.contents}, ensure_ascii=False) + "\n")
    for name, split, questions in ((TRAIN_FILE, "train", world.train), (TEST_FILE, "test", world.test)):
        rows = [_row(question, split, index, ids) for index, question in enumerate(questions)]
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), directory / name)
    return {PASSAGES_FILE: len(passages), TRAIN_FILE: len(world.train), TEST_FILE: len(world.test)}


def user_message(question: str) -> list[dict[str, str]]:
    """Return the chat a question is asked in."""
    return [{"role": "user", "content": PROMPT.format(question=question)}]


def _row(question: Question, split: str, index: int, ids: Mapping[str, str]) -> dict[str, Any]:
    answers: Sequence[str] = question.answers
    return {
        "id": f"{split}_{index}",
        "question": question.text,
        "golden_answers": answers,
        "data_source": f"laptop_{question.num_hops}hop",
        "prompt": user_message(question.text),
        "ability": "fact-reasoning",
        "reward_model": {"style": "rule", "ground_truth": {"target": answers}},
        "extra_info": {
            "split": split,
            "index": index,
            "num_hops": question.num_hops,
            "gold_passages": [ids[fact.key] for fact in question.facts],
        },
    }
