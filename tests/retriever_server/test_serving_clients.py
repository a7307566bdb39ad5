"""Slow clients, clients who leave, and many requests: what they cost a real server."""

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest


@pytest.fixture
def patient(launch: Any, index_dir: Path) -> Any:
    return launch("serve", "--index", index_dir, "--threads", 1, "--read-timeout-s", 1)


def trickle(port: int, beginning: bytes, piece: bytes) -> tuple[float, bytes]:
    """Send a request slower and slower; how long that was suffered, and what was answered."""
    start = time.monotonic()
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(beginning)
        connection.settimeout(0.1)
        while time.monotonic() < start + 30:
            try:
                connection.sendall(piece)
                received = connection.recv(1000)
                answer += received
                if not received:
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    return time.monotonic() - start, answer


def test_slow_clients_are_ended_and_disturb_nobody(patient: Any) -> None:
    slow = b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    cases = {
        "head": (slow, b"X: y\r\n", b""),
        "nothing": (b"", b"", b""),
        "body": (slow + b"\r\n{", b" ", b"HTTP/1.1 408"),
        "second head": (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + slow, b"X: y\r\n", b"HTTP/1.1 200"),
        "endless head": (slow + b"Y: " + b"y" * 100_000, b"y" * 1000, b""),
    }
    for name, (beginning, piece, answered) in cases.items():
        taken, answer = trickle(patient.port, beginning, piece)
        assert taken < 10, name
        assert answer.startswith(answered), (name, answer)
    assert httpx.post(f"{patient.url}/retrieve", json={"queries": ["a"]}).status_code == 200


async def test_512_connections_at_once_get_their_own_answers(launch: Any, index_dir: Path) -> None:
    server = launch("serve", "--index", index_dir, "--threads", 1, "--cache-size", 0)
    limits = httpx.Limits(max_connections=512, max_keepalive_connections=512)
    async with httpx.AsyncClient(base_url=server.url, timeout=300, limits=limits, trust_env=False) as http:

        async def ask(*queries: str) -> Any:
            response = await http.post("/retrieve", json={"queries": queries, "return_scores": True})
            assert response.status_code == 200, response.text
            return response.json()["result"]

        queries = [f"the {number}th river of country {number * 7 % 512}" for number in range(512)]
        answers = await asyncio.gather(*map(ask, queries))
        assert all(len(answer) == 1 for answer in answers)
        # No two are alike by their scores, and each is what its query gets in one request. Of float32 the last bits
        # may differ.
        assert len({json.dumps(answer) for answer in answers}) == 512
        again = [found for start in range(0, 512, 64) for found in await ask(*queries[start : start + 64])]
        for query, (found,), expected in zip(queries, answers, again, strict=True):
            assert [hit["document"] for hit in found] == [hit["document"] for hit in expected], query
            assert [hit["score"] for hit in found] == pytest.approx([hit["score"] for hit in expected], abs=1e-6), query


async def test_requests_whose_clients_left_are_not_worked_on(launch: Any, index_dir: Path) -> None:
    server = launch("serve", "--index", index_dir, "--threads", 1, "--max-batch", 8)
    body = {"queries": [f"query {number} " + "and so on " * 100 for number in range(200)]}
    async with httpx.AsyncClient(base_url=server.url) as http:

        async def leave(number: int) -> None:
            mine = {"queries": [f"{number} {query}" for query in body["queries"]]}
            with pytest.raises(httpx.ReadTimeout):
                await http.post("/retrieve", json=mine, timeout=httpx.Timeout(60, read=0.3))

        await asyncio.gather(*[leave(number) for number in range(10)])
        start = time.monotonic()
        assert (await http.post("/retrieve", json={"queries": ["who is left"]}, timeout=60)).status_code == 200
        waited = time.monotonic() - start
        lines = (await http.get("/metrics")).text.splitlines()
    counts = {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}
    assert counts["retriever_encoded_queries_total"] + counts["retriever_dropped_queries_total"] >= 2000
    assert counts["retriever_encoded_queries_total"] < 1000
    assert counts["retriever_queue_depth"] == 0
    assert waited < 10


PERIOD = 60
"""Requests after which `traffic` comes back to the same lengths: so many are warm-up, and at least so many measured."""


def test_memory_does_not_grow_with_requests(launch: Any, index_dir: Path) -> None:
    """A short soak; RETRIEVER_SOAK_S makes it a long one."""
    server = launch("serve", "--index", index_dir, "--threads", 1, "--cache-size", 100)
    seconds = float(os.environ.get("RETRIEVER_SOAK_S", "12"))
    growth, num_requests = rss_growth(server.process.pid, traffic(server.url), seconds / 2)
    # Allocators wander by a few MB in so short a time.
    assert growth < 20e6, f"{growth / 1e6:.2f} MB in {num_requests} requests"


def traffic(url: str) -> Callable[[int], object]:
    http = httpx.Client(base_url=url, timeout=60)
    large = "word " * 40_000

    def send(number: int) -> object:
        queries = [f"query {number} {row} " + "long " * (number * row % PERIOD) for row in range(8)]
        http.post("/retrieve", json={"queries": [large] if number % 20 == 0 else queries}).raise_for_status()
        return http.post("/retrieve", content=b'{"queries": [null]}')

    return send


def rss_growth(pid: int, send: Callable[[int], object], seconds: float) -> tuple[float, int]:
    """Bytes by which a warm process grows with requests, by least squares over them, and how many there were."""
    for number in range(PERIOD):
        send(number)
    end = time.monotonic() + seconds
    samples: list[float] = []
    while time.monotonic() < end or len(samples) < PERIOD:
        send(PERIOD + len(samples))
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        samples.append(pages * float(os.sysconf("SC_PAGE_SIZE")))
    middle, mean = (len(samples) - 1) / 2, sum(samples) / len(samples)
    slope = sum((n - middle) * (y - mean) for n, y in enumerate(samples)) / sum(
        (n - middle) ** 2 for n in range(len(samples))
    )
    return slope * len(samples), len(samples)
