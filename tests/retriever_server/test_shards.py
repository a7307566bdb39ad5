"""Shards and their merge: exact, ties by row, and whole when a replica dies."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever_server.corpus import Hit
from retriever_server.engine import Engine
from retriever_server.errors import IndexMismatchError, SettingsError, ShardError
from retriever_server.front import check_batches, merge_infos
from retriever_server.front_settings import FrontSettings
from retriever_server.info import Info, describe, limits_of
from retriever_server.manifest import Manifest
from retriever_server.merging import MergedShards, merge_hits
from retriever_server.service_settings import ServiceSettings
from retriever_server.settings import ServeSettings
from retriever_server.shard import Shard


@given(
    scores=st.lists(st.integers(0, 4), min_size=1, max_size=40),
    num_shards=st.integers(1, 6),
    topk=st.integers(1, 50),
)
def test_the_merge_is_the_top_of_the_whole_with_ties_by_row(scores: list[int], num_shards: int, topk: int) -> None:
    num_shards = min(num_shards, len(scores))
    hits = [Hit(b"%d" % row, float(score)) for row, score in enumerate(scores)]

    def best(rows: Sequence[int]) -> list[Hit]:
        return [hits[row] for row in sorted(rows, key=lambda row: (-scores[row], row))[:topk]]

    parts = [best(Shard(number, num_shards).rows(len(scores))) for number in range(num_shards)]
    assert merge_hits(parts, topk) == best(range(len(scores)))


@given(count=st.integers(1, 1000), num_shards=st.integers(1, 50))
def test_shards_hold_every_row_once_in_order_and_evenly(count: int, num_shards: int) -> None:
    num_shards = min(num_shards, count)
    ranges = [Shard(number, num_shards).rows(count) for number in range(num_shards)]
    assert [row for rows in ranges for row in rows] == list(range(count))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


@pytest.mark.parametrize("text", ["2/2", "0/0", "-1/2", "1", "a/b", "1/2/3", " 0/2", ""])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--shard"):
        Shard.parse(text)


def test_more_shards_than_rows_are_refused() -> None:
    with pytest.raises(SettingsError, match="only 2 passages"):
        Shard(0, 3).rows(2)


def test_merged_engines_answer_as_the_whole(index_dir: Path, engine: Engine) -> None:
    manifest = Manifest.load(index_dir)
    parts = [
        Engine.load(ServeSettings(index=index_dir, threads=1, shard=Shard(number, 4)), manifest) for number in range(4)
    ]
    merged = MergedShards(parts, num_threads=1)
    queries = ["capital of Peru", "", "a city with museums", "goods and food", "Economy"]
    for topk in (1, 3, 30, 50):
        assert merged.find(merged.encode(queries), topk) == engine.search(queries, topk)


def infos(index_dir: Path, num_shards: int) -> list[Info]:
    manifest = Manifest.load(index_dir)
    return [
        describe(manifest, Shard(number, num_shards), ServeSettings(index=index_dir)) for number in range(num_shards)
    ]


def test_a_front_describes_the_whole(index_dir: Path) -> None:
    (whole,) = infos(index_dir, 1)
    assert merge_infos(infos(index_dir, 3), ServiceSettings()) == whole


def test_a_front_refuses_what_is_not_one_index(index_dir: Path) -> None:
    first, second = infos(index_dir, 2)
    with pytest.raises(IndexMismatchError, match="order"):
        merge_infos([second, first], ServiceSettings())
    with pytest.raises(IndexMismatchError, match="serves part 0/2, not 0/1"):
        merge_infos([first], ServiceSettings())
    with pytest.raises(IndexMismatchError, match="differ in corpus_sha256"):
        merge_infos([first, second.model_copy(update={"corpus_sha256": "0"})], ServiceSettings())
    with pytest.raises(IndexMismatchError, match="--max-topk 100"):
        merge_infos([first, second], ServiceSettings(max_topk=101))


@pytest.mark.parametrize(("limit", "most"), [({"max_queue": 127}, 127), ({"max_passages": 1500}, 15)])
def test_a_front_refuses_servers_that_would_refuse_its_batches(
    index_dir: Path, limit: dict[str, int], most: int
) -> None:
    (info,) = infos(index_dir, 1)
    check_batches([info], ServiceSettings())
    info = info.model_copy(update={"limits": limits_of(ServiceSettings(**limit))})
    with pytest.raises(IndexMismatchError, match=f"server 1 of --shards takes {most} queries .* --max-batch {most}"):
        check_batches([infos(index_dir, 1)[0], info], ServiceSettings())
    check_batches([info], ServiceSettings(max_batch=most))


@pytest.mark.parametrize("shards", ["", "http://a:1,", "https://a", "a:1", "http://a|"])
def test_shards_must_have_addresses(shards: str) -> None:
    with pytest.raises(SettingsError, match="no http://HOST:PORT"):
        FrontSettings.parse(shards)


class Down:
    """A shard without a server."""

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        raise ShardError("no server of a shard answers", "shard")


def test_a_missing_shard_is_no_answer_rather_than_a_part_of_one(engine: Engine) -> None:
    merged = MergedShards([engine, Down()], num_threads=1)
    with pytest.raises(ShardError):
        merged.find(["a"], 3)


async def test_two_shards_of_two_replicas_one_of_them_killed_under_load(launch: Any, index_dir: Path) -> None:
    waits = [
        launch("serve", "--index", index_dir, "--threads", 1, "--shard", f"{number}/2", later=True)
        for number in (0, 1)
        for _ in range(2)
    ]
    servers = [wait() for wait in waits]
    shards = ",".join("|".join(server.url for server in pair) for pair in (servers[:2], servers[2:]))
    front = launch("front", "--shards", shards, "--cache-size", 0)
    whole = launch("serve", "--index", index_dir, "--threads", 1)
    async with httpx.AsyncClient(timeout=60) as http:

        async def same(number: int) -> None:
            body = {"queries": [f"question {number}", "the capital of Kenya"], "topk": 5, "return_scores": True}
            answers = [await http.post(f"{server.url}/retrieve", json=body) for server in (front, whole)]
            assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
            found, expected = (
                [[hit["document"]["id"] for hit in hits] for hits in answer.json()["result"]] for answer in answers
            )
            assert found == expected

        await asyncio.gather(*[same(number) for number in range(50)])
        under_load = [asyncio.create_task(same(number)) for number in range(50, 250)]
        await asyncio.sleep(0.3)
        servers[0].process.kill()
        await asyncio.gather(*under_load)
        assert (await http.get(f"{front.url}/info")).json()["count"] == 30
        servers[1].process.kill()
        gone = await http.post(f"{front.url}/retrieve", json={"queries": ["nobody has half of this"]})
        assert gone.status_code == 503
        assert int(gone.headers["retry-after"]) >= 1
