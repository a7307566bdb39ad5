"""Several retrievers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from waiting import SLACK_S

from verl_llds.errors import RetrievalError
from verl_llds.search.client import backoff, endpoint
from verl_llds.search.documents import Document

DOCUMENTS = (Document("7", "Paris\nCapital"),)


async def test_the_first_that_works_is_asked(server, second, make_client) -> None:
    client = make_client(server, second)
    for n in range(4):
        assert (await client.search(str(n))).attempts == 1
    assert (len(server.bodies), len(second.bodies)) == (4, 0)


@pytest.mark.parametrize("trouble", [500, 503, "hang_up", "hang", b"<html>"])
async def test_the_next_one_is_asked_at_once(
    server, second, make_client, monkeypatch: pytest.MonkeyPatch, trouble: Any
) -> None:
    monkeypatch.setattr(backoff, "_FIRST_BACKOFF_S", 20.0)
    server.script = [(200, None, trouble) if isinstance(trouble, bytes) else getattr(server, str(trouble), trouble)]
    result = await asyncio.wait_for(make_client(server, second, timeout_s=1.0).search("who"), 15)
    assert (result.documents, result.attempts) == (DOCUMENTS, 2)


async def test_a_first_one_that_is_dead_is_left_alone_after_some_failures(
    stopped, second, make_client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_PAUSE_S", 20.0)
    client = make_client(stopped, second)
    attempts = [(await client.search(str(n))).attempts for n in range(8)]
    assert attempts == [2] * 5 + [1] * 3


async def test_the_first_one_is_used_again_when_it_is_back(stopped, second, make_client) -> None:
    client = make_client(stopped, second)
    for n in range(6):
        await client.search(f"down {n}")
    stopped.start()
    number = 0
    while not stopped.bodies:
        await client.search(f"probe {number}")
        await asyncio.sleep(0.02)
        number += 1
    before = len(second.bodies)
    for n in range(3):
        assert (await client.search(f"up {n}")).attempts == 1
    assert len(second.bodies) == before


async def test_one_that_asked_for_a_pause_is_passed_over(server, second, make_client) -> None:
    server.script = [(503, {"Retry-After": "2"}), 200]
    client = make_client(server, second)
    assert [(await client.search(str(n))).attempts for n in range(3)] == [2, 1, 1]
    assert len(server.bodies) == 1
    await asyncio.sleep(2.3)
    await client.search("later")
    assert len(server.bodies) == 2


async def test_a_pause_at_one_does_not_delay_the_other(server, second, make_client) -> None:
    server.script = [(503, {"Retry-After": "50"})]
    second.script = [500, 200]
    result = await asyncio.wait_for(make_client(server, second).search("who"), 15)
    assert result.attempts == 3


async def test_a_round_over_all_of_them_is_followed_by_a_wait(
    server, second, make_client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "_FIRST_BACKOFF_S", 0.6)
    server.script, second.script = [500, 200], [500]
    result = await make_client(server, second).search("who")
    assert result.attempts == 3
    assert server.times[1] - second.times[0] >= 0.3


async def test_all_dead_is_an_error_that_names_all(stopped, server, make_client) -> None:
    server.kill()
    started = time.monotonic()
    with pytest.raises(RetrievalError, match=r"max_wait_s=1 is over") as refused:
        await make_client(stopped, server, max_wait_s=1.0).search("who")
    assert time.monotonic() - started < 1.0 + SLACK_S
    assert f"{stopped.url}: ClientConnectorError" in str(refused.value)
    assert f"{server.url}: ClientConnectorError" in str(refused.value)


async def test_each_one_s_own_trouble_is_named(server, second, make_client) -> None:
    server.script, second.script = [(500, None, b"out of memory")], [(200, None, b"<html>")]
    with pytest.raises(RetrievalError, match=r"after 4 attempt") as refused:
        await make_client(server, second, max_attempts=4).search("who")
    assert f"{server.url}: HTTP 500, 'out of memory'" in str(refused.value)
    assert f"{second.url}: the answer is not in Search-R1's format" in str(refused.value)


async def test_a_rejected_request_is_not_taken_elsewhere(server, second, make_client) -> None:
    server.script = [422]
    with pytest.raises(RetrievalError, match=r"after 1 attempt\(s\), the last one rejected") as refused:
        await make_client(server, second).search("who")
    assert second.bodies == []
    assert f"{second.url}: not asked" in str(refused.value)


@pytest.mark.parametrize("status", [302, 401, 403, 404, 405])
async def test_a_wrong_address_or_token_is_no_reason_to_give_up_while_another_works(
    server, second, make_client, status: int
) -> None:
    server.script = [status]
    client = make_client(server, second)
    for query in ("who", "where"):
        result = await client.search(query)
        assert (result.documents, result.attempts) == (DOCUMENTS, 2)


async def test_a_wrong_address_is_asked_once_while_the_other_one_comes_back(server, second, make_client) -> None:
    server.script, second.script = [404], [500, 500, 200]
    assert (await make_client(server, second).search("who")).documents == DOCUMENTS
    assert (len(server.bodies), len(second.bodies)) == (1, 3)


async def test_a_wrong_address_beside_one_that_is_down_is_waited_for_without_spinning(
    server, stopped, make_client
) -> None:
    server.script = [404]
    started = time.process_time()
    with pytest.raises(RetrievalError, match=r"max_wait_s=2 is over") as refused:
        await make_client(server, stopped, max_wait_s=2.0).search("who")
    assert time.process_time() - started < 1.0
    assert len(server.bodies) == 1
    assert f"{server.url}: HTTP 404" in str(refused.value)


async def test_wrong_addresses_alone_are_given_up_at_once(server, second, make_client) -> None:
    server.script, second.script = [404], [401]
    with pytest.raises(RetrievalError, match=r"after 2 attempt\(s\), and no address of search.url") as refused:
        await make_client(server, second).search("who")
    assert "RETRIEVER_TOKEN" in str(refused.value)


async def test_one_that_hangs_beyond_max_wait_s_is_found_out_nevertheless(
    server, second, make_client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_PAUSE_S", 20.0)
    monkeypatch.setattr(endpoint, "_PROBES_PER_WAIT", 0.01)
    server.script = [server.hang]
    client = make_client(server, second, timeout_s=30, max_wait_s=1.0)
    errors = await asyncio.gather(*(client.search(str(n)) for n in range(5)), return_exceptions=True)
    assert all(isinstance(error, RetrievalError) for error in errors)
    assert (await client.search("next")).attempts == 1


async def test_what_others_found_is_told_to_a_query_that_was_never_sent(
    stopped, make_client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_PAUSE_S", 20.0)
    monkeypatch.setattr(endpoint, "_PROBES_PER_WAIT", 0.01)
    client = make_client(stopped, max_wait_s=1.0)
    with pytest.raises(RetrievalError):
        await client.search("first")
    with pytest.raises(RetrievalError, match=r"after 0 attempt.*as other queries found: .*Cannot connect") as refused:
        await client.search("second")
    assert refused.value.attempts == 0
    assert "retriever-server serve" in str(refused.value)
