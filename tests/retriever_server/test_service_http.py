"""Tokens, limits and probes over HTTP, and SkyRL's and Search-R1's ways of asking."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from retriever_server import retrieve
from retriever_server.app import create_app
from retriever_server.batching import Batcher
from retriever_server.corpus import Hit
from retriever_server.info import describe
from retriever_server.manifest import Manifest
from retriever_server.metrics import Metrics
from retriever_server.settings import ServeSettings


class Echo:
    """An engine that answers each query with itself."""

    def encode(self, queries: Sequence[str]) -> list[str]:
        return list(queries)

    def depth(self, topk: int) -> int:
        return topk

    def find(self, encoded: list[str], topk: int) -> list[list[Hit]]:
        return [
            [Hit(orjson.dumps({"id": str(i), "contents": query}), 1.0 - i) for i in range(topk)] for query in encoded
        ]


class Open:
    """Opens clients of services with the settings given."""

    def __init__(self, index: Path) -> None:
        self._index = index
        self._closing: list[Any] = []

    async def __call__(self, **changes: Any) -> httpx.AsyncClient:
        settings = ServeSettings(index=self._index, **changes)
        metrics = Metrics()
        batcher = Batcher(Echo, settings, metrics)
        await batcher.start()
        await batcher.wait_ready()
        info = describe(Manifest.load(self._index), settings.shard, settings)
        transport = httpx.ASGITransport(app=create_app(lambda: info, batcher, settings, metrics))
        client = httpx.AsyncClient(transport=transport, base_url="http://test")
        self._closing += [client.aclose, batcher.close]
        return client

    async def close(self) -> None:
        for close in self._closing:
            await close()


@pytest.fixture
async def opened(index_dir: Path) -> AsyncIterator[Open]:
    opened = Open(index_dir)
    yield opened
    await opened.close()


async def test_a_token_guards_everything_but_the_probes(opened: Open) -> None:
    http = await opened(token="s3cret")
    right = {"Authorization": "Bearer s3cret"}
    for path in ("/health", "/ready"):
        assert (await http.get(path)).status_code == 200
    for path in ("/info", "/metrics", "/openapi.json"):
        assert (await http.get(path)).status_code == 401
        assert (await http.get(path, headers=right)).status_code == 200
    for headers in ({}, {"Authorization": "Bearer s3cre"}):
        refused = await http.post("/retrieve", json={"queries": ["a"]}, headers=headers)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert list(refused.json()) == ["error"]
    assert (await http.post("/retrieve", json={"queries": ["a"]}, headers=right)).status_code == 200


async def test_the_rate_limit_answers_503_that_clients_retry(opened: Open) -> None:
    http = await opened(max_rps=2.0)
    answers = [await http.post("/retrieve", json={"queries": ["a"]}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 503, 503]
    assert answers[2].headers["retry-after"] == "1"
    scraped = (await http.get("/metrics")).text
    assert 'retriever_rejects_total{reason="rate_limit"} 2.0' in scraped
    assert 'retriever_requests_total{status="503"} 2.0' in scraped


async def test_requests_are_counted(opened: Open) -> None:
    http = await opened()
    await asyncio.gather(*[http.post("/retrieve", json={"queries": ["a", "b", "a"]}) for _ in range(3)])
    await http.post("/retrieve", json={"queries": ["a"]})
    lines = (await http.get("/metrics")).text.splitlines()
    counts = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
    assert counts["retriever_queries_total"] == 10
    assert counts["retriever_encoded_queries_total"] == 2
    assert counts["retriever_cache_hits_total"] == 1
    assert counts["retriever_cache_misses_total"] == 9
    assert counts["retriever_shared_queries_total"] == 7
    assert counts["retriever_in_flight_requests"] == 0
    assert counts['retriever_stage_seconds_count{stage="find"}'] >= 1


async def test_what_clients_of_each_descendant_send(opened: Open) -> None:
    http = await opened()
    search_r1 = (await http.post("/retrieve", json={"queries": ["q"], "topk": 1, "return_scores": True})).json()
    assert search_r1 == {"result": [[{"document": {"id": "0", "contents": "q"}, "score": 1.0}]]}
    skyrl = (await http.post("/retrieve", json={"query": "q", "topk": 1, "return_scores": True})).json()
    assert skyrl == search_r1
    asearcher = (await http.post("/retrieve", json={"queries": ["q"], "topk": 1, "return_scores": False})).json()
    assert asearcher == {"result": [[{"id": "0", "contents": "q"}]]}


async def test_a_chunked_body_counts_as_it_comes(opened: Open) -> None:
    http = await opened()

    async def body(pieces: list[bytes]) -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    assert (await http.post("/retrieve", content=body([b'{"queries"', b': ["a"]}']))).status_code == 200
    huge = await http.post("/retrieve", content=body([b'{"queries": ["', *[b"x" * (1 << 20)] * 17]))
    assert (huge.status_code, huge.headers["connection"]) == (413, "close")


async def test_every_answer_is_described(opened: Open) -> None:
    http = await opened()
    schema = (await http.get("/openapi.json")).json()
    assert set(schema["paths"]["/retrieve"]["post"]["responses"]) == {"200", "401", "408", "413", "422", "500", "503"}
    assert set(schema["paths"]["/ready"]["get"]["responses"]) == {"200", "503"}
    assert set(schema["paths"]["/info"]["get"]["responses"]) == {"200", "401", "503"}
    (header,) = schema["paths"]["/retrieve"]["post"]["parameters"]
    assert (header["name"], header["in"]) == ("X-Deadline-Ms", "header")


async def test_an_answer_is_bounded(opened: Open) -> None:
    http = await opened(max_passages=200)
    for number, topk, status in (
        (2, 100, 200),
        (3, 100, 422),
        (66, 3, 200),
        (67, None, 422),
        (201, 1, 422),
        (2, 999, 200),
    ):
        response = await http.post("/retrieve", json={"queries": ["q"] * number, "topk": topk})
        assert response.status_code == status, (number, topk)
    assert response.json()["result"][1][99]["id"] == "99"
    refused = (await http.post("/retrieve", json={"queries": ["q"] * 3, "topk": 999})).json()["error"]
    assert refused.startswith("queries: 3 with topk 100 ask for more than 200 passages")


async def test_the_largest_batches_of_search_r1_are_let_in(opened: Open) -> None:
    http = await opened()
    for number, topk in ((8192, 3), (512, 100)):
        queries = [f"q{i}" for i in range(number)]
        result = (await http.post("/retrieve", json={"queries": queries, "topk": topk})).json()["result"]
        assert [found[topk - 1]["contents"] for found in result] == queries


async def test_what_takes_long_is_done_beside_the_event_loop(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of large bodies one at a time."""
    inside: list[int] = []
    most, threads = 0, []
    parse, write = retrieve.parse_request, retrieve.write_response

    def parsing(body: Any, **rest: Any) -> Any:
        nonlocal most
        inside.append(1)
        most = max(most, len(inside))
        time.sleep(0.02)
        inside.pop()
        return parse(body, **rest)

    def writing(answers: Any, **rest: Any) -> bytes:
        threads.append(threading.current_thread() is threading.main_thread())
        return write(answers, **rest)

    monkeypatch.setattr(retrieve, "parse_request", parsing)
    monkeypatch.setattr(retrieve, "write_response", writing)
    http = await opened()
    large = {"queries": [f"{i} {'x' * 100}" for i in range(1000)]}
    answers = await asyncio.gather(*[http.post("/retrieve", json=large) for _ in range(4)])
    assert [len(answer.json()["result"]) for answer in answers] == [1000] * 4
    assert (most, threads) == (1, [False] * 4)
    await http.post("/retrieve", json={"queries": ["q"]})
    assert threads[4:] == [True]
