import asyncio

import pytest
from lab.retriever import OverlapSearcher
from lab.vocabulary import WordTokenizer, prompt_text
from lab.world import RELATIONS, World, WorldSettings, make_world

from verl_llds.reward.qa import normalize_answer
from verl_llds.search.documents import format_documents
from verl_llds.search.protocol import ActionKind
from verl_llds.search.search_r1 import INVALID_ACTION_MESSAGE, SearchR1Protocol, format_observation
from verl_llds.search.tools import SearchTool

PARSE = SearchR1Protocol([SearchTool(searcher=None)]).parse


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(WorldSettings())


@pytest.fixture(scope="module")
def searcher(world: World) -> OverlapSearcher:
    return OverlapSearcher(world.passages(), topk=3)


def test_same_settings_make_the_same_world(world: World) -> None:
    assert make_world(WorldSettings()) == world
    assert make_world(WorldSettings()).passages() == world.passages()
    assert make_world(WorldSettings(seed=1)) != world


def test_world_is_as_large_and_as_ambiguous_as_asked(world: World) -> None:
    assert len(set(world.entities)) == 400
    assert len({(fact.entity, fact.relation) for fact in world.facts}) == 400 * len(RELATIONS)
    ambiguous = sum(fact.rival is not None for fact in world.facts) / len(world.facts)
    assert ambiguous == pytest.approx(0.5, abs=0.03)
    assert all(fact.rival != fact.value for fact in world.facts)


def test_exact_match_keeps_names_apart(world: World) -> None:
    assert len({normalize_answer(entity) for entity in world.entities}) == len(world.entities)


def test_a_full_query_finds_every_claim_about_its_fact(world: World, searcher: OverlapSearcher) -> None:
    for fact in world.facts[::97]:
        found = [document.contents for document in asyncio.run(searcher.search(fact.query)).documents]
        assert len(found) == 3
        for value in (fact.value, fact.rival):
            assert value is None or f"{fact.entity}\n{fact.relation} {value}" in found
        words = set(fact.query.split())
        assert all(len(words & set(contents.split())) >= 2 for contents in found)


def test_the_right_claim_is_not_always_first(world: World, searcher: OverlapSearcher) -> None:
    firsts = []
    for fact in world.facts:
        if fact.rival is not None:
            texts = [document.contents for document in asyncio.run(searcher.search(fact.query)).documents]
            first = next(text for text in texts if text.startswith(f"{fact.entity}\n{fact.relation} "))
            firsts.append(first.endswith(fact.value))
    assert sum(firsts) / len(firsts) == pytest.approx(0.5, abs=0.05)


def test_a_query_of_unknown_words_finds_nothing(searcher: OverlapSearcher) -> None:
    assert asyncio.run(searcher.search("zebra")).documents == ()


def test_tokenizer_writes_the_protocol_back_unchanged(world: World, searcher: OverlapSearcher) -> None:
    tokenizer = WordTokenizer()
    fact = world.facts[0]
    texts = [
        prompt_text(fact.query),
        format_observation(format_documents(asyncio.run(searcher.search(fact.query)).documents)),
        format_observation(""),
        INVALID_ACTION_MESSAGE,
        f"<think> i must look this up now </think> <search> {fact.query} </search>",
        f"<think> so the answer is </think> <answer> {fact.value} </answer>",
    ]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text
    assert len(tokenizer.encode(texts[0])) == 5


def test_a_turn_ends_at_one_token_and_parses(world: World) -> None:
    tokenizer = WordTokenizer()
    for tag, kind in (("search", ActionKind.CALL), ("answer", ActionKind.ANSWER)):
        ids = tokenizer.encode(f"<think> now </think> <{tag}> {world.entities[0]} </{tag}>")
        assert [number in tokenizer.stop_ids for number in ids] == [False] * (len(ids) - 1) + [True]
        action = PARSE(tokenizer.decode(ids, skip_special_tokens=True))
        assert (action.kind, action.content) == (kind, world.entities[0])


def test_special_tokens_can_be_left_out() -> None:
    tokenizer = WordTokenizer()
    ids = tokenizer.encode("<think><end>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<think><end>"


def test_text_outside_the_world_is_refused() -> None:
    with pytest.raises(ValueError, match="' zebra'"):
        WordTokenizer().encode("<think> zebra")
