"""Attempts, waits, connections and event loops of the client."""

from __future__ import annotations

import asyncio
import socket
import time
from http.server import BaseHTTPRequestHandler

import pytest

from verl_llds.errors import RetrievalError
from verl_llds.search.client import SearchClient
from verl_llds.search.protocol import Document
from verl_llds.search.settings import SearchConfig

DOCUMENTS = [Document("7", "Paris\nCapital")]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_passing_trouble_is_tried_again(server, ask, status: int) -> None:
    server.script = [status, status, 200]
    assert await ask() == DOCUMENTS
    assert len(server.bodies) == 3


@pytest.mark.timeout(20)
async def test_attempts_are_bounded(server, ask) -> None:
    server.script = [503]
    with pytest.raises(RetrievalError, match=r"after 3 attempt.*HTTP 503"):
        await ask(max_attempts=3)
    assert len(server.bodies) == 3


async def test_retry_after_is_waited_for(server, ask) -> None:
    server.script = [(503, {"Retry-After": "1"}), 200]
    assert await ask() == DOCUMENTS
    assert 1.0 <= server.times[1] - server.times[0] < 5


@pytest.mark.parametrize("header", ["Wed, 21 Oct 2099 07:28:00 GMT", "soon", "-5", "\u00b2", "1e9", ""])
async def test_other_retry_after_is_ignored(server, ask, header: str) -> None:
    server.script = [(503, {"Retry-After": header}), 200]
    assert await ask() == DOCUMENTS
    assert server.times[1] - server.times[0] < 5


@pytest.mark.parametrize("asked", ["86400", "9" * 400])
async def test_retry_after_is_capped(server, ask, asked: str) -> None:
    server.script = [(503, {"Retry-After": asked}), 200]
    assert await ask(timeout_s=0.3) == DOCUMENTS
    assert 0.3 <= server.times[1] - server.times[0] < 5


def test_backoff_grows_to_a_bound() -> None:
    client = SearchClient(SearchConfig())
    waits = [client._wait_s(attempt, None) for attempt in (1, 2, 3, 6, 7, 5000)]
    for wait, most in zip(waits, [0.25, 0.5, 1, 8, 8, 8], strict=True):
        assert most / 2 <= wait <= most


@pytest.mark.timeout(20)
async def test_hanging_server_times_out_and_is_tried_again(server, ask) -> None:
    server.script = [lambda handler: server.released.wait(10), 200]
    assert await ask(timeout_s=0.2) == DOCUMENTS


@pytest.mark.timeout(20)
async def test_trickling_server_times_out(server, ask) -> None:
    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        try:
            while not server.released.wait(0.05):
                handler.wfile.write(b" ")
        except OSError:
            handler.close_connection = True

    server.script = [trickle]
    with pytest.raises(RetrievalError, match=r"after 2 attempt.*search\.timeout_s=0\.3"):
        await asyncio.wait_for(ask(timeout_s=0.3, max_attempts=2), 5)


async def test_connection_refused() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/retrieve"
        client = SearchClient(SearchConfig(url=url, max_attempts=2))
        with pytest.raises(RetrievalError, match=r"after 2 attempt.*Cannot connect.*-server serve") as refused:
            await client.search("who")
    assert url in str(refused.value)


async def test_server_that_hangs_up_is_tried_again(server, ask) -> None:
    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True

    server.script = [hang_up, 200]
    assert await ask() == DOCUMENTS


@pytest.mark.timeout(20)
async def test_cancellation_passes_through_and_frees_the_slot(server) -> None:
    server.script = [lambda handler: server.released.wait(10), 200]
    client = SearchClient(SearchConfig(url=server.url, max_concurrency=1))
    task = asyncio.create_task(client.search("who"))
    while not server.bodies:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await client.search("who") == DOCUMENTS
    await client.close()


async def test_concurrency_is_capped(server) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.03)
        server.send(handler, 200)

    server.script = [slow]
    client = SearchClient(SearchConfig(url=server.url, max_concurrency=3))
    await asyncio.gather(*(client.search(str(n)) for n in range(12)))
    await client.close()
    assert len(server.bodies) == 12
    assert 1 < server.most_busy <= 3


async def test_waiting_for_a_slot_is_no_attempt(server) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.05)
        server.send(handler, 200)

    server.script = [slow]
    client = SearchClient(SearchConfig(url=server.url, max_concurrency=1, timeout_s=0.5, max_attempts=1))
    await asyncio.gather(*(client.search(str(n)) for n in range(16)))
    await client.close()
    assert server.most_busy == 1


async def test_connections_are_reused(server) -> None:
    client = SearchClient(SearchConfig(url=server.url))
    for _ in range(4):
        await client.search("who")
    await client.close()
    assert len(server.connections) == 1


def test_one_client_on_several_event_loops(server) -> None:
    """An idle connection of a closed loop fails when it is used again."""
    client = SearchClient(SearchConfig(url=server.url))
    for _ in range(3):
        assert asyncio.run(client.search("who")) == DOCUMENTS
    asyncio.run(client.close())
    assert asyncio.run(client.search("who")) == DOCUMENTS
