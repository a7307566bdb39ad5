"""A retriever that is down: waiting for it, probing it, and going on."""

from __future__ import annotations

import asyncio
import time
from http.server import BaseHTTPRequestHandler

import pytest
from waiting import SLACK_S, until

from verl_llds.errors import RetrievalError
from verl_llds.search.client import SearchClient, backoff, failover
from verl_llds.search.documents import Document
from verl_llds.search.settings import SearchConfig

DOCUMENTS = (Document("7", "Paris\nCapital"),)


async def test_a_server_that_is_not_up_yet_is_waited_for(stopped, make_client) -> None:
    asyncio.get_running_loop().call_later(1.0, stopped.start)
    result = await make_client(stopped, max_attempts=1).search("who")
    assert result.documents == DOCUMENTS
    assert result.attempts > 1


async def test_a_server_that_is_dead_for_ever_is_given_up_on(stopped, make_client) -> None:
    started = time.monotonic()
    expected = r"search\.max_wait_s=1 is over.*Cannot connect.*`retriever-server serve"
    with pytest.raises(RetrievalError, match=expected) as refused:
        await make_client(stopped, max_wait_s=1.0).search("who")
    assert 0.9 < time.monotonic() - started < 1.0 + SLACK_S
    assert refused.value.attempts > 1
    assert stopped.url in str(refused.value)


async def test_a_host_without_an_address_is_waited_for() -> None:
    client = SearchClient(SearchConfig(url="http://nowhere.invalid/retrieve", max_attempts=1, max_wait_s=1.0))
    with pytest.raises(RetrievalError, match=r"max_wait_s=1 is over.*nowhere\.invalid"):
        await client.search("who")
    await client.close()


async def test_a_query_s_backoff_does_not_hold_back_its_probe(server, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "backoff_s", lambda num_rounds, jitter: 0.01 if num_rounds < 5 else 20.0)
    server.script = [server.hang_up] * 5 + [200]
    assert (await asyncio.wait_for(ask(), 15)).attempts == 6


async def test_a_dead_server_is_probed_by_one_query_at_a_time(server, make_client) -> None:
    client = make_client(server, max_wait_s=60, max_concurrency=8)
    server.script = [server.hang_up]
    searches = [asyncio.create_task(client.search(str(n))) for n in range(100)]
    await asyncio.sleep(0.6)
    # Eight at once and what they open the breaker with, then pauses of 0.05 s doubled; each query on its own would
    # have made some six requests by now.
    assert len(server.bodies) < 30
    server.script = [200]
    results = await asyncio.gather(*searches)
    assert all(result.documents == DOCUMENTS for result in results)


async def test_waiters_go_on_as_soon_as_the_probe_succeeds(
    stopped, make_client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With backoffs of half a minute and more, only the probe's success can bring them back.
    monkeypatch.setattr(backoff, "_FIRST_BACKOFF_S", 60.0)
    monkeypatch.setattr(backoff, "_MAX_BACKOFF_S", 60.0)
    client = make_client(stopped, max_wait_s=60)
    searches = [asyncio.create_task(client.search(str(n))) for n in range(60)]
    await asyncio.sleep(0.2)
    stopped.start()
    await asyncio.wait_for(asyncio.gather(*searches), 20)


async def test_a_cancelled_probe_lets_another_query_probe(server, make_client) -> None:
    client = make_client(server, timeout_s=20)
    server.script = [server.hang_up] * 5 + [server.hang, 200]
    first = asyncio.create_task(client.search("first"))
    await until(lambda: len(server.bodies) >= 6)
    second = asyncio.create_task(client.search("second"))
    await asyncio.sleep(0.05)
    assert len(server.bodies) == 6
    first.cancel()
    assert (await asyncio.wait_for(second, 15)).documents == DOCUMENTS


@pytest.mark.timeout(60)
async def test_hundreds_of_searches_outlast_a_restart(server, make_client) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.02)
        server.send(handler, 200)

    server.script = [slow]
    client = make_client(server, max_concurrency=32)
    searches = [asyncio.create_task(client.search(str(n))) for n in range(200)]
    await until(lambda: len(server.bodies) >= 60)
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(0.3)
    assert not all(search.done() for search in searches)
    server.start()
    results = await asyncio.gather(*searches)
    assert all(result.documents == DOCUMENTS for result in results)
    assert any(result.attempts > 1 for result in results)
