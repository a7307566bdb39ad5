import hashlib
import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from facts import Fact
from questions import Question
from relations import RELATIONS
from world import World, WorldSettings, check_world, make_world, write_world

from verl_llds.reward.qa import normalize_answer


@pytest.fixture(scope="module")
def written(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("world")
    write_world(world, directory)
    return directory


def _digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def test_same_seed_same_bytes(written: Path, tmp_path: Path) -> None:
    write_world(make_world(WorldSettings()), tmp_path)
    assert _digests(tmp_path) == _digests(written)


def test_other_seed_other_split(world: World) -> None:
    other = make_world(WorldSettings(seed=1))
    assert {q.text for q in other.test} != {q.text for q in world.test}


def test_counts(world: World) -> None:
    assert 3500 <= len(world.facts) <= 6000
    assert len(world.train) >= 2000
    assert Counter(q.num_hops for q in world.test) == {1: 150, 2: 150}
    assert len({q.text for q in (*world.train, *world.test)}) == len(world.train) + len(world.test)


def test_passages_are_short_and_hold_the_answers(world: World) -> None:
    passages = {passage.id: passage.contents for passage in world.passages()}
    ids = world.passage_ids()
    assert max(len(text.split()) for text in passages.values()) <= 30
    for question in (*world.train, *world.test):
        final = passages[ids[question.facts[-1].key]]
        assert normalize_answer(question.answers[0]) in normalize_answer(final)
        assert len(question.answers[0].split()) <= 4


def test_hops_are_joined(world: World) -> None:
    for question in (*world.train, *world.test):
        if question.num_hops == 2:
            first, second = question.facts
            assert first.value == second.subject
            assert second.subject not in question.text.split(first.subject)[0]


def test_no_held_out_fact_is_asked_about_in_training(world: World) -> None:
    asked = {fact.key for question in world.train for fact in question.facts}
    held_out = [fact for question in world.test for fact in question.facts]
    assert not asked & {fact.key for fact in held_out}
    whole = {f.subject for q in world.train for f in q.facts if RELATIONS[f.relation].subject_kind != "country"}
    assert not whole & {f.subject for f in held_out if RELATIONS[f.relation].subject_kind != "country"}


def _subjects(facts: list[Fact]) -> set[str]:
    return {fact.subject for fact in facts if RELATIONS[fact.relation].subject_kind != "country"}


def test_leak_is_refused(world: World) -> None:
    question = world.train[0]
    leaky = World(facts=world.facts, train=world.train, test=(*world.test, question))
    with pytest.raises(ValueError, match="held-out facts"):
        check_world(leaky)


def test_unanswerable_question_is_refused(world: World) -> None:
    fact = world.facts[0]
    moved = Fact(relation=fact.relation, subject=fact.subject, value="nowhere at all", extra="")
    broken = World(facts=world.facts, train=(Question(text="?", facts=(moved,)),), test=())
    with pytest.raises(ValueError, match="does not hold"):
        check_world(broken)


def test_passage_file_is_in_search_r1_format(written: Path, world: World) -> None:
    lines = [json.loads(line) for line in (written / "passages.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [set(line) for line in lines[:3]] == [{"id", "contents"}] * 3
    assert len({line["id"] for line in lines}) == len(lines) == len(world.facts)
    assert all(line["contents"].count("\n") == 1 for line in lines)


def test_parquet_is_in_verl_schema(written: Path) -> None:
    ids: list[str] = []
    for name, split in (("train.parquet", "train"), ("test.parquet", "test")):
        rows = pq.read_table(written / name).to_pylist()
        ids += [row["id"] for row in rows]
        assert [row["extra_info"]["index"] for row in rows] == list(range(len(rows)))
        for row in rows:
            assert row["prompt"][0]["role"] == "user"
            assert row["prompt"][0]["content"].endswith(f"Question: {row['question']}\n")
            assert row["data_source"] == f"laptop_{row['extra_info']['num_hops']}hop"
            assert row["extra_info"]["split"] == split
            assert len(row["extra_info"]["gold_passages"]) == row["extra_info"]["num_hops"]
            assert row["reward_model"] == {
                "style": "rule",
                "ground_truth": {"target": row["golden_answers"]},
            }
            assert row["golden_answers"]
            assert row["ability"] == "fact-reasoning"
            # A column without values would name no agent loop, where its absence leaves it to the configuration.
            assert all(value is not None for value in row.values())
    assert len(set(ids)) == len(ids)
