"""The queue, with an engine that counts who is inside it and works only when told."""

import asyncio
import threading
from collections.abc import AsyncIterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from retriever_server.app import create_app
from retriever_server.batching import Batcher, Search
from retriever_server.corpus import Hit
from retriever_server.engine import Engine
from retriever_server.errors import OverloadedError, SearchFailedError
from retriever_server.manifest import Manifest
from retriever_server.settings import ServeSettings


class Stub:
    """An engine that answers each query with itself, once `gate` is open."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        self._inside = threading.Lock()

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        assert self._inside.acquire(blocking=False), "two threads in one engine"
        try:
            self.batches.append(list(queries))
            self.entered.set()
            assert self.gate.wait(30)
            if "poison" in queries:
                raise RuntimeError("broken")
            return [[Hit(b'"%s"' % query.encode(), 1.0)] * topk for query in queries]
        finally:
            self._inside.release()


@pytest.fixture
def stub() -> Stub:
    return Stub()


async def started(load: Search, *, max_batch: int = 128, max_queue: int = 100) -> Batcher:
    batcher = Batcher(lambda: load, max_batch=max_batch, max_queue=max_queue)
    await batcher.start()
    await batcher.wait_ready()
    return batcher


@pytest.fixture
async def batcher(stub: Stub) -> AsyncIterator[Batcher]:
    batcher = await started(stub.search)
    yield batcher
    stub.gate.set()
    await batcher.close()


async def occupy(batcher: Batcher, stub: Stub) -> "asyncio.Task[list[list[Hit]]]":
    """Keep the engine busy with one query, so that what comes next has to queue."""
    task = asyncio.create_task(batcher.submit(["first"], 1))
    await asyncio.to_thread(stub.entered.wait, 30)
    return task


def texts(found: list[list[Hit]]) -> list[str]:
    return [hits[0].document.decode().strip('"') for hits in found]


async def test_requests_that_wait_together_share_a_batch(batcher: Batcher, stub: Stub) -> None:
    first = await occupy(batcher, stub)
    waiting = [asyncio.create_task(batcher.submit([f"q{i}", f"r{i}"], 1 + i % 3)) for i in range(20)]
    await asyncio.sleep(0)
    stub.gate.set()
    assert texts(await first) == ["first"]
    for i, found in enumerate(await asyncio.gather(*waiting)):
        assert texts(found) == [f"q{i}", f"r{i}"]
        assert [len(hits) for hits in found] == [1 + i % 3] * 2
    assert [len(batch) for batch in stub.batches] == [1, 40]


async def test_a_large_request_lets_small_ones_pass(stub: Stub) -> None:
    batcher = await started(stub.search, max_batch=32)
    first = await occupy(batcher, stub)
    large = asyncio.create_task(batcher.submit([f"large{i}" for i in range(90)], 1))
    small = asyncio.create_task(batcher.submit(["small"], 1))
    await asyncio.sleep(0)
    stub.gate.set()
    await asyncio.gather(first, large, small)
    assert "small" in stub.batches[1]
    assert texts(large.result()) == [f"large{i}" for i in range(90)]
    assert max(map(len, stub.batches)) == 32
    await batcher.close()


async def test_a_full_queue_is_refused_and_has_room_again(batcher: Batcher, stub: Stub) -> None:
    first = await occupy(batcher, stub)
    waiting = asyncio.create_task(batcher.submit(["w"] * 100, 1))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await batcher.submit(["one more"], 1)
    stub.gate.set()
    await asyncio.gather(first, waiting)
    assert texts(await batcher.submit(["later"] * 100, 1)) == ["later"] * 100


async def test_a_caller_who_left_is_never_worked_on(batcher: Batcher, stub: Stub) -> None:
    first = await occupy(batcher, stub)
    gone = asyncio.create_task(batcher.submit(["gone"] * 100, 1))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    stays = asyncio.create_task(batcher.submit(["stays"] * 100, 1))  # There is room at once.
    await asyncio.sleep(0)
    stub.gate.set()
    await asyncio.gather(first, stays)
    assert not any("gone" in batch for batch in stub.batches)


async def test_a_failing_batch_fails_its_callers_only(batcher: Batcher, stub: Stub) -> None:
    stub.gate.set()
    with pytest.raises(SearchFailedError, match="RuntimeError"):
        await batcher.submit(["poison"], 1)
    assert texts(await batcher.submit(["fine"], 1)) == ["fine"]


async def test_http_answers_while_loading_when_full_and_when_broken(index_dir: Path, stub: Stub) -> None:
    settings = ServeSettings(index=index_dir, max_queue=2)
    may_load = threading.Event()

    def load() -> Search:
        assert may_load.wait(30)
        return stub.search

    batcher = Batcher(load, max_batch=settings.max_batch, max_queue=settings.max_queue)
    app = create_app(Manifest.load(index_dir), batcher, settings)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        await batcher.start()
        for response in (await http.get("/ready"), await http.post("/retrieve", json={"queries": ["a"]})):
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert "loading" in response.json()["error"]
        assert (await http.get("/health")).status_code == 200
        may_load.set()
        await batcher.wait_ready()
        first = await occupy(batcher, stub)
        waiting = asyncio.create_task(batcher.submit(["a", "b"], 1))
        await asyncio.sleep(0)
        full = await http.post("/retrieve", json={"queries": ["c"]})
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        stub.gate.set()
        await asyncio.gather(first, waiting)
        broken = await http.post("/retrieve", json={"queries": ["poison"]})
        assert broken.status_code == 500
        assert "log" in broken.json()["error"]
        assert (await http.post("/retrieve", json={"queries": ["a"]})).status_code == 200
        await batcher.close()


async def test_a_client_who_hangs_up_is_never_worked_on(index_dir: Path, batcher: Batcher, stub: Stub) -> None:
    app = create_app(Manifest.load(index_dir), batcher, ServeSettings(index=index_dir))
    first = await occupy(batcher, stub)
    received = iter([{"type": "http.request", "body": b'{"queries": ["gone"]}'}, {"type": "http.disconnect"}])
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return next(received)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/retrieve", "headers": [], "query_string": b""}
    await app(scope, receive, send)
    assert sent[0]["status"] == 499
    stub.gate.set()
    await first
    assert texts(await batcher.submit(["after"], 1)) == ["after"]
    assert stub.batches == [["first"], ["after"]]


async def test_concurrent_http_requests_share_forward_passes(index_dir: Path, engine: Engine) -> None:
    """Over the real engine: never two threads in it, and far fewer calls than requests."""
    calls: list[int] = []
    inside = threading.Lock()

    def search(queries: Sequence[str], topk: int) -> list[list[Hit]]:
        assert inside.acquire(blocking=False), "two threads in one engine"
        calls.append(len(queries))
        try:
            return engine.search(queries, topk)
        finally:
            inside.release()

    batcher = await started(search)
    app = create_app(Manifest.load(index_dir), batcher, ServeSettings(index=index_dir))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        questions = [f"capital of {country}" for country in ("France", "Italy", "Kenya", "Peru")] * 10
        bodies = [{"queries": [question], "topk": 1, "return_scores": True} for question in questions]
        answers = await asyncio.gather(*[http.post("/retrieve", json=body) for body in bodies])
    await batcher.close()
    ids = [answer.json()["result"][0][0]["document"]["id"] for answer in answers]
    assert ids == ["p0", "p6", "p18", "p21"] * 10
    assert sum(calls) == 40
    assert len(calls) <= 10
