"""An engine that works only when told and admits one thread a stage, and what tests of its queue need."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import orjson

from retriever_server.batching import Batcher
from retriever_server.corpus import Hit
from retriever_server.metrics import Metrics
from retriever_server.service_settings import ServiceSettings
from retriever_server.wire import Answer


class Stage:
    """A gate that one thread at a time may pass, once it is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self._inside = threading.Lock()

    def __enter__(self) -> None:
        assert self._inside.acquire(blocking=False), "two threads in one stage"
        self.entered.set()
        assert self.gate.wait(30)

    def __exit__(self, *_: object) -> None:
        self._inside.release()


class Stub:
    """An engine that answers each query with itself. ``poison`` fails to encode, ``toxin`` to be searched."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.encoding, self.finding = Stage(), Stage()
        self.finding.gate.set()

    def encode(self, queries: Sequence[str]) -> list[str]:
        if queries == ["warm-up"]:
            return list(queries)
        with self.encoding:
            self.batches.append(list(queries))
            if "poison" in queries:
                raise RuntimeError("broken")
            return list(queries)

    def depth(self, topk: int) -> int:
        return 1

    def find(self, encoded: list[str], topk: int) -> list[list[Hit]]:
        with self.finding:
            if "toxin" in encoded:
                raise RuntimeError("broken")
            score = float("nan") if "unscored" in encoded else 1.0
            return [[Hit(orjson.dumps(query), score)] * topk for query in encoded]


async def started(stub: Any, metrics: Metrics | None = None, **settings: Any) -> Batcher:
    settings = {"max_queue": 100, "cache_size": 0, **settings}
    batcher = Batcher(lambda: stub, ServiceSettings(**settings), metrics or Metrics())
    await batcher.start()
    await batcher.wait_ready()
    return batcher


async def occupy(batcher: Batcher, stub: Stub) -> "asyncio.Task[list[Answer]]":
    """Keep the encoder busy with one query, so that what comes next has to queue."""
    task = asyncio.create_task(batcher.submit(["first"], 1))
    await asyncio.to_thread(stub.encoding.entered.wait, 30)
    return task


def texts(found: list[Answer]) -> list[str]:
    return [orjson.loads(answer.bare)[0] for answer in found]
