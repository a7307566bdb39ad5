"""The queue as HTTP clients meet it."""

import asyncio
import threading
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from stub_engine import Stage, Stub, occupy, started, texts

from retriever_server.app import create_app
from retriever_server.batching import Batcher
from retriever_server.corpus import Hit
from retriever_server.engine import Engine
from retriever_server.info import describe
from retriever_server.manifest import Manifest
from retriever_server.metrics import Metrics
from retriever_server.service_settings import ServiceSettings
from retriever_server.settings import ServeSettings


def asgi(index_dir: Path, batcher: Batcher, **changes: Any) -> Any:
    settings = ServeSettings(index=index_dir, **changes)
    info = describe(Manifest.load(index_dir), settings.shard, settings)
    return create_app(lambda: info, batcher, settings, Metrics())


async def test_http_answers_while_loading_when_full_and_when_broken(index_dir: Path, stub: Stub) -> None:
    may_load = threading.Event()

    def load() -> Stub:
        assert may_load.wait(30)
        return stub

    batcher = Batcher(load, ServiceSettings(max_queue=2), Metrics())
    transport = httpx.ASGITransport(app=asgi(index_dir, batcher, max_queue=2))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        await batcher.start()
        for response in (await http.get("/ready"), await http.post("/retrieve", json={"queries": ["a"]})):
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert "loading" in response.json()["error"]
        assert (await http.get("/health")).status_code == 200
        may_load.set()
        await batcher.wait_ready()
        assert (await http.get("/ready")).status_code == 200
        first = await occupy(batcher, stub)
        waiting = asyncio.create_task(batcher.submit(["a", "b"], 1))
        await asyncio.sleep(0)
        full = await http.post("/retrieve", json={"queries": ["c"]})
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        late = await http.post("/retrieve", json={"queries": ["a"], "topk": 1}, headers={"X-Deadline-Ms": "30"})
        assert late.status_code == 503
        assert "deadline" in late.json()["error"]
        stub.encoding.gate.set()
        await asyncio.gather(first, waiting)
        broken = await http.post("/retrieve", json={"queries": ["poison"]})
        assert broken.status_code == 500
        assert "log" in broken.json()["error"]
        assert (await http.post("/retrieve", json={"queries": ["a"]})).status_code == 200
        await batcher.close()


@pytest.mark.parametrize("header", ["0", "-1", "1.5", "soon", "", "9" * 30])
async def test_a_wrong_deadline_is_422(index_dir: Path, batcher: Batcher, header: str) -> None:
    transport = httpx.ASGITransport(app=asgi(index_dir, batcher))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        answer = await http.post("/retrieve", json={"queries": ["a"]}, headers={"X-Deadline-Ms": header})
        assert answer.status_code == 422
        assert "X-Deadline-Ms" in answer.json()["error"]


async def test_a_client_who_hangs_up_is_never_worked_on(index_dir: Path, batcher: Batcher, stub: Stub) -> None:
    app = asgi(index_dir, batcher)
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
    stub.encoding.gate.set()
    await first
    assert texts(await batcher.submit(["after"], 1)) == ["after"]
    assert stub.batches == [["first"], ["after"]]


async def test_512_clients_share_forward_passes_and_each_gets_its_own_answer(index_dir: Path, engine: Engine) -> None:
    """Over the real engine: never two threads in a stage, and far fewer batches than requests."""

    class Guarded:
        def __init__(self) -> None:
            self.sizes: list[int] = []
            self.encoding, self.finding = Stage(), Stage()
            self.encoding.gate.set()
            self.finding.gate.set()

        def encode(self, queries: Sequence[str]) -> Any:
            with self.encoding:
                self.sizes.append(len(queries))
                return engine.encode(queries)

        def depth(self, topk: int) -> int:
            return engine.depth(topk)

        def find(self, encoded: Any, topk: int) -> list[list[Hit]]:
            with self.finding:
                return engine.find(encoded, topk)

    guarded = Guarded()
    batcher = await started(guarded, max_queue=8192)
    transport = httpx.ASGITransport(app=asgi(index_dir, batcher))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        questions = [
            f"capital of {country}, please ({number})"
            for number in range(128)
            for country in ("France", "Italy", "Kenya", "Peru")
        ]
        bodies = [{"queries": [question], "topk": 1, "return_scores": True} for question in questions]
        answers = await asyncio.gather(*[http.post("/retrieve", json=body) for body in bodies])
    await batcher.close()
    ids = [answer.json()["result"][0][0]["document"]["id"] for answer in answers]
    assert ids == ["p0", "p6", "p18", "p21"] * 128
    assert sum(guarded.sizes) == 513  # With the warm-up.
    assert len(guarded.sizes) <= 40
