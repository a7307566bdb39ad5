"""What a service survives: signals and kills, under load. Real processes, the real encoder."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from retriever_server.build import build_index
from retriever_server.settings import BuildSettings, IndexType

CAPITALS = {"France": "p0", "Italy": "p6", "Japan": "p15", "Kenya": "p18", "Peru": "p21", "Norway": "p24"}


class Clients:
    """Clients who ask one after another, each over a kept connection, and look at every answer."""

    def __init__(self, url: str, *, retry_s: float = 0.0) -> None:
        self.url = url
        self.retry_s = retry_s
        self.num_answers = 0
        self.statuses: set[int] = set()
        self.wrong: list[object] = []
        self.lost: list[str] = []
        self.refused = 0
        self.stop = False

    @asynccontextmanager
    async def asking(self, num_clients: int) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            tasks = [asyncio.create_task(self._ask(http, number)) for number in range(num_clients)]
            await asyncio.sleep(0.5)
            yield
            self.stop = True
            await asyncio.gather(*tasks)

    async def _ask(self, http: aiohttp.ClientSession, number: int) -> None:
        turn = 0
        while not self.stop:
            turn += 1
            country = list(CAPITALS)[(number + turn) % len(CAPITALS)]
            query = f"the capital of {country} ({number} {turn})"
            if not await self._ask_once(http, query, CAPITALS[country]):
                return

    async def _ask_once(self, http: aiohttp.ClientSession, query: str, expected: str) -> bool:
        end = time.monotonic() + self.retry_s
        body = {"queries": [query], "topk": 1, "return_scores": True}
        while True:
            try:
                async with http.post(f"{self.url}/retrieve", json=body) as response:
                    found = await response.json()
                    self.statuses.add(response.status)
                    if response.status == 200:
                        self.num_answers += 1
                        if found["result"][0][0]["document"]["id"] != expected:
                            self.wrong.append((query, found))
                        return True
                    trouble = f"{response.status} {found}"
            except aiohttp.ClientConnectorError:
                trouble = "refused"
                self.refused += 1
                if not self.retry_s:
                    return False
            except aiohttp.ClientError as error:
                trouble = repr(error)
            if time.monotonic() > end:
                self.lost.append(trouble)
                return True
            await asyncio.sleep(0.1)


async def test_sigterm_under_load_loses_no_accepted_request(launch: Any, index_dir: Path) -> None:
    server = launch("serve", "--index", index_dir, "--threads", 1, "--cache-size", 0)
    clients = Clients(server.url)
    async with clients.asking(48):
        while clients.num_answers <= 48:
            await asyncio.sleep(0.05)
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, 30) == 0
    assert clients.num_answers > 48
    assert (clients.lost, clients.wrong, clients.statuses) == ([], [], {200})
    assert clients.refused


async def test_a_killed_server_is_recovered_from_by_retrying(launch: Any, index_dir: Path) -> None:
    server = launch("serve", "--index", index_dir, "--threads", 1)
    clients = Clients(server.url, retry_s=120)
    async with clients.asking(16):
        server.process.kill()
        server.process.wait()
        before = clients.num_answers
        await asyncio.to_thread(launch, "serve", "--index", index_dir, "--threads", 1, port=server.port)
        while clients.num_answers < before + 64:
            await asyncio.sleep(0.05)
    assert (clients.lost, clients.wrong) == ([], [])
    assert clients.refused


async def test_workers_share_a_port_a_dead_one_is_replaced_and_all_drain(launch: Any, index_dir: Path) -> None:
    server = launch("serve", "--index", index_dir, "--workers", 2, "--cache-size", 0)
    workers = children(server.process.pid)
    assert len(workers) == 2
    clients = Clients(server.url, retry_s=60)
    async with clients.asking(32):
        os.kill(workers[0], signal.SIGKILL)
        await asyncio.sleep(1)
        while len(children(server.process.pid)) < 2:
            await asyncio.sleep(0.1)
        num_answers = clients.num_answers
        scraped = httpx.get(f"{server.url}/metrics", timeout=60).text
    assert (clients.lost, clients.wrong) == ([], [])
    # The dead worker's count is still in the sum.
    (line,) = [line for line in scraped.splitlines() if line.startswith("retriever_queries_total ")]
    assert float(line.split()[1]) > num_answers * 0.8
    clients = Clients(server.url)
    async with clients.asking(32):
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, 60) == 0
    assert (clients.lost, clients.wrong) == ([], [])


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_worker_that_cannot_load_ends_the_service(launch: Any, index_dir: Path) -> None:
    wait = launch("serve", "--index", index_dir, "--workers", 2, "--device", "no-such-device", later=True)
    with pytest.raises(pytest.fail.Exception, match=r"(?s)cannot be loaded on no-such-device.*worker ended before"):
        wait()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_end_with_a_parent_that_is_killed_and_leave_the_port_and_no_files(
    launch: Any, corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By words alone they start in a second.
    index, temporary = tmp_path / "words", tmp_path / "tmp"
    build_index(BuildSettings(corpus=corpus_file, out=index, type=IndexType.BM25))
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    server = launch("serve", "--index", index, "--workers", 2)
    workers = children(server.process.pid)
    assert len(workers) == 2
    (left_behind,) = temporary.glob("retriever-metrics-*")
    server.process.kill()
    server.process.wait()
    end = time.monotonic() + 30
    while any(map(is_alive, workers)):
        assert time.monotonic() < end, "the workers live on"
        time.sleep(0.05)
    again = launch("serve", "--index", index, "--workers", 2, port=server.port)
    assert httpx.post(f"{again.url}/retrieve", json={"queries": ["Peru"]}, timeout=60).status_code == 200
    (directory,) = temporary.glob("retriever-metrics-*")
    assert directory != left_behind
    # What is in use stays, whoever else starts.
    launch("serve", "--index", index, "--workers", 2)
    assert directory.is_dir()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_loading_ends_at_once(start: Any, number: int) -> None:
    # Nobody listens there, so the front waits for its shard, that is, loads, for minutes.
    with socket.socket() as shard, socket.socket() as free:
        for bound in (shard, free):
            bound.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        process = start("front", "--shards", f"http://127.0.0.1:{shard.getsockname()[1]}", "--port", port)
        end = time.monotonic() + 60
        while True:
            try:
                ready = httpx.get(f"http://127.0.0.1:{port}/ready", timeout=60)
                break
            except httpx.ConnectError:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < end
                time.sleep(0.05)
        assert ready.status_code == 503
        told = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert time.monotonic() - told < 10
    assert out == ""
    assert err.startswith("retriever-server: waiting, since no server of a shard answers")
