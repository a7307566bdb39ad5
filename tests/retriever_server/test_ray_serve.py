"""The service on Ray Serve: two shards of two replicas on this machine, one replica killed under load."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import ray
from ray import serve

from retriever_server.engine import Engine
from retriever_server.errors import SettingsError
from retriever_server.serve import build


@pytest.fixture
def served(index_dir: Path) -> Iterator[str]:
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
    arguments = {"index": str(index_dir), "num_shards": 2, "min_replicas": 2, "max_replicas": 3, "cache_size": 0}
    serve.run(build(arguments), name="retriever", route_prefix="/")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()


def replicas(deployment: str) -> list[psutil.Process]:
    name = f"ServeReplica:retriever:{deployment}"
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if any(name in part for part in process.info["cmdline"] or [])]


async def test_shards_of_replicas_answer_as_the_whole_while_one_is_killed(served: str, engine: Engine) -> None:
    async with httpx.AsyncClient(base_url=served, timeout=60) as http:
        info = (await http.get("/info")).json()
        assert (info["count"], info["shard"]) == (30, "0/1")
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


def test_what_the_service_does_not_know_is_refused(index_dir: Path) -> None:
    with pytest.raises(TypeError, match="max_tpok"):
        build({"index": str(index_dir), "max_tpok": 5})
    with pytest.raises(SettingsError, match="max-topk"):
        build({"index": str(index_dir), "max_topk": 0})
