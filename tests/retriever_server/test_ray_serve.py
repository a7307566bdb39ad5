"""The service on Ray Serve: shards of replicas on this machine, one replica killed under load, and more by load."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import ray
from ray import serve

from retriever_server.engine import Engine
from retriever_server.errors import OverloadedError, SearchFailedError, SettingsError, ShardError
from retriever_server.serve import RayShard, build


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of Ray Serve on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init(
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"HF_HUB_OFFLINE": "1"}},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()


@pytest.fixture
def served(address: str, index_dir: Path) -> Iterator[str]:
    # All strings, as from the command line.
    arguments = {
        "index": str(index_dir),
        "num_shards": "2",
        "min_replicas": "2",
        "max_replicas": "3",
        "upscale_delay_s": "1",
        "look_back_period_s": "2",
        "cache_size": "0",
        "max_topk": "200",
    }
    serve.run(build(arguments), name="retriever", route_prefix="/")
    yield address
    serve.delete("retriever")


def replicas(deployment: str) -> list[psutil.Process]:
    name = f"ServeReplica:retriever:{deployment}"
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if any(name in part for part in process.info["cmdline"] or [])]


async def test_shards_of_replicas_answer_as_the_whole_while_one_is_killed(served: str, engine: Engine) -> None:
    async with httpx.AsyncClient(base_url=served, timeout=60) as http:
        info = (await http.get("/info")).json()
        assert (info["count"], info["shard"], info["limits"]["topk"]) == (30, "0/1", 200)
        assert (await http.get("/ready")).status_code == 200
        wrong = await http.post("/retrieve", json={"queries": "not a list"})
        assert wrong.status_code == 422

        async def same(number: int) -> None:
            queries = [f"question {number}", "the capital of Kenya"]
            body: dict[str, Any] = {"queries": queries, "topk": 5}
            answer = await http.post("/retrieve", json=body)
            assert answer.status_code == 200, answer.text
            found = [[document["id"] for document in documents] for documents in answer.json()["result"]]
            assert found == expected[number]

        expected = [
            [[hit.document.split(b'"')[3].decode() for hit in hits] for hits in engine.search([query, kenya], 5)]
            for query, kenya in ((f"question {number}", "the capital of Kenya") for number in range(200))
        ]
        await asyncio.gather(*[same(number) for number in range(20)])
        before = replicas("shard-0")
        assert len(before) == len(replicas("shard-1")) == 2
        under_load = [asyncio.create_task(same(number)) for number in range(20, 200)]
        await asyncio.sleep(0.3)
        os.kill(before[0].pid, signal.SIGKILL)
        await asyncio.gather(*under_load)

        async def ask_on(number: int) -> None:
            while not enough.is_set():
                await same(number)

        enough = asyncio.Event()
        asking = [asyncio.create_task(ask_on(number)) for number in range(48)]
        end = time.monotonic() + 180
        try:
            while min(len(replicas(shard)) for shard in ("shard-0", "shard-1")) < 3:
                assert time.monotonic() < end, "the load started no other replica"
                await asyncio.sleep(0.5)
        finally:
            enough.set()
        await asyncio.gather(*asking)


def test_what_a_replica_says_is_told_apart(address: str) -> None:
    # Made here: a replica cannot import this module.
    class Replica:
        def search(self, queries: Sequence[str], topk: int) -> list[bytes]:
            if "poison" in queries:
                raise SearchFailedError("the search failed: RuntimeError")
            if "too much" in queries:
                raise OverloadedError("full", "queue_full", 7.0)
            return [b"[]" for _ in queries]

    handle = serve.run(serve.deployment(Replica).bind(), name="replica", route_prefix="/replica")
    shard = RayShard(handle, timeout_s=60)
    assert shard.search(["a", "b"], 1) == [[], []]
    start = time.monotonic()
    with pytest.raises(SearchFailedError):
        shard.search(["a", "poison"], 1)
    with pytest.raises(ShardError, match="busy") as refused:
        shard.search(["too much"], 1)
    assert refused.value.retry_after_s == 7.0
    assert time.monotonic() - start < 30
    serve.delete("replica")


def test_what_the_service_does_not_know_is_refused(index_dir: Path) -> None:
    with pytest.raises(SettingsError, match="max_tpok is no argument"):
        build({"index": str(index_dir), "max_tpok": 5})
    with pytest.raises(SettingsError, match="max-topk is 0"):
        build({"index": str(index_dir), "max_topk": "0"})
