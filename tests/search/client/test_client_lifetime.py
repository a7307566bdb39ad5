"""Slots, connections, event loops, shared searches and the end of the client."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from http.server import BaseHTTPRequestHandler

import pytest
from waiting import SLACK_S, until

from verl_llds.errors import RetrievalError
from verl_llds.search.client import SearchClient, failover
from verl_llds.search.documents import Document
from verl_llds.search.settings import SearchConfig

DOCUMENTS = (Document("7", "Paris\nCapital"),)


async def until_asked(server, times: int = 1) -> None:
    await until(lambda: len(server.bodies) >= times)


@pytest.fixture
def slow(server):
    """Make every answer take a moment."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.03)
        server.send(handler, 200)

    server.script = [answer]


@pytest.mark.usefixtures("slow")
async def test_concurrency_is_capped(server, make_client) -> None:
    client = make_client(server, max_concurrency=3)
    await asyncio.gather(*(client.search(str(n)) for n in range(12)))
    assert len(server.bodies) == 12
    assert 1 < server.most_busy <= 3


@pytest.mark.usefixtures("slow")
async def test_waiting_for_a_slot_is_no_attempt(server, make_client) -> None:
    client = make_client(server, max_concurrency=1, timeout_s=1.0, max_attempts=1)
    # One after the other, they take longer than one of them may.
    results = await asyncio.gather(*(client.search(str(n)) for n in range(50)))
    assert [result.attempts for result in results] == [1] * 50


async def test_waiting_for_a_slot_ends_with_max_wait_s(server, make_client) -> None:
    server.script = [server.hang]
    client = make_client(server, max_concurrency=1, max_wait_s=1.0)
    started = time.monotonic()
    errors = await asyncio.gather(*(client.search(str(n)) for n in range(3)), return_exceptions=True)
    assert time.monotonic() - started < 1.0 + SLACK_S
    assert sorted(error.attempts for error in errors) == [0, 0, 1]
    assert "search.max_concurrency" in str(max(errors, key=lambda error: "after 0" in str(error)))


async def test_who_waits_to_ask_again_holds_no_slot(server, make_client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "backoff_s", lambda num_rounds, jitter: 20.0)
    server.script = [500, 200]
    client = make_client(server, max_concurrency=1)
    waiting = asyncio.create_task(client.search("first"))
    await until_asked(server)
    await asyncio.wait_for(client.search("second"), 15)
    assert not waiting.done()


async def test_who_waits_for_a_probe_holds_no_slot(server, make_client) -> None:
    server.script = [server.hang_up] * 8 + [200]
    client = make_client(server, max_concurrency=1)
    await asyncio.wait_for(asyncio.gather(*(client.search(str(n)) for n in range(20))), 15)


async def test_connections_are_reused(server, make_client) -> None:
    client = make_client(server)
    for n in range(4):
        await client.search(str(n))
    assert len(server.connections) == 1


def test_one_client_on_several_event_loops(server) -> None:
    """An idle connection of a closed loop fails when it is used again."""
    client = SearchClient(SearchConfig(url=server.url, cache=False))
    for _ in range(3):
        assert asyncio.run(client.search("who")).documents == DOCUMENTS
    asyncio.run(client.close())
    assert asyncio.run(client.search("who")).documents == DOCUMENTS
    assert len(server.bodies) == 4


@pytest.mark.usefixtures("slow")
async def test_identical_queries_in_flight_are_one_request(server, make_client) -> None:
    client = make_client(server)
    results = await asyncio.gather(*(client.search("who") for _ in range(50)))
    assert len(server.bodies) == 1
    assert [result.attempts for result in results] == [1] + [0] * 49
    assert all(result.documents == DOCUMENTS for result in results)


async def test_an_identical_query_is_asked_once_in_a_step(server, make_client) -> None:
    client = make_client(server)
    client.start_step(1)
    assert [(await client.search("who")).attempts for _ in range(3)] == [1, 0, 0]
    client.start_step(1)
    client.start_step(0)
    assert (await client.search("who")).attempts == 0
    client.start_step(2)
    assert (await client.search("who")).attempts == 1
    assert len(server.bodies) == 2


async def test_a_search_of_the_step_before_is_not_joined(server, make_client) -> None:
    server.script = [server.hang, 200]
    client = make_client(server)
    before = asyncio.create_task(client.search("who"))
    await until_asked(server)
    client.start_step(1)
    assert (await client.search("who")).attempts == 1
    assert not before.done()


async def test_without_the_cache_every_query_is_asked(server, make_client) -> None:
    client = make_client(server, cache=False)
    results = await asyncio.gather(*(client.search("who") for _ in range(5)))
    assert [result.attempts for result in results] == [1] * 5
    await client.search("who")
    assert len(server.bodies) == 6


async def test_sharers_get_the_same_error_and_it_is_not_kept(server, make_client) -> None:
    server.script = [500, 500, 200]
    client = make_client(server, max_attempts=2)
    errors = await asyncio.gather(*(client.search("who") for _ in range(10)), return_exceptions=True)
    assert {str(error) for error in errors} == {str(errors[0])}
    assert all(isinstance(error, RetrievalError) and error.attempts == 2 for error in errors)
    assert len(server.bodies) == 2
    assert (await client.search("who")).attempts == 1


async def test_one_caller_s_cancellation_leaves_the_request_to_the_others(server, make_client) -> None:
    def until_released(handler: BaseHTTPRequestHandler) -> None:
        server.released.wait(10)
        server.send(handler, 200)

    server.script = [until_released]
    client = make_client(server)
    searches = [asyncio.create_task(client.search("who")) for _ in range(3)]
    await until_asked(server)
    searches[0].cancel()
    await asyncio.sleep(0.05)
    server.released.set()
    assert [(await search).documents for search in searches[1:]] == [DOCUMENTS] * 2
    assert searches[0].cancelled()
    assert len(server.bodies) == 1


async def test_the_request_is_cancelled_with_its_last_caller_and_frees_the_slot(server, make_client) -> None:
    def until_hung_up(handler: BaseHTTPRequestHandler) -> None:
        if not handler.rfile.read(1):
            raise ConnectionResetError

    server.script = [until_hung_up, 200]
    client = make_client(server, max_concurrency=1)
    searches = [asyncio.create_task(client.search("who")) for _ in range(3)]
    await until_asked(server)
    for search in searches:
        search.cancel()
    assert await asyncio.to_thread(server.hung_up.wait, 10)
    assert (await client.search("who")).documents == DOCUMENTS


@pytest.mark.parametrize("cache", [True, False])
async def test_close_leaves_nothing_running(server, make_client, cache: bool) -> None:
    server.script = [server.hang]
    tasks_before = asyncio.all_tasks()
    client = make_client(server, cache=cache)
    searches = [asyncio.create_task(client.search(str(n))) for n in range(3)]
    await until_asked(server, 3)
    await asyncio.wait_for(client.close(), 15)
    for search in searches:
        with pytest.raises(RetrievalError, match="closed"):
            await search
    assert asyncio.all_tasks() == tasks_before


async def test_a_search_after_close_opens_a_new_pool(server, make_client) -> None:
    client = make_client(server, cache=False)
    await client.search("who")
    await client.close()
    await client.close()
    assert (await client.search("who")).documents == DOCUMENTS


async def test_requests_are_not_logged(server, make_client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server.script = [500, 200]
    await make_client(server).search("who")
    assert not caplog.records


async def test_the_error_pickles_with_its_attempts(server, make_client) -> None:
    server.script = [500]
    with pytest.raises(RetrievalError) as refused:
        await make_client(server, max_attempts=2).search("who")
    copied = pickle.loads(pickle.dumps(refused.value))
    assert (str(copied), copied.attempts) == (str(refused.value), 2)
