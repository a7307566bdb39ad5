"""Attempts and waits at one retriever in trouble."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from waiting import SLACK_S, until

from verl_llds.errors import RetrievalError
from verl_llds.search.client import endpoint, failover
from verl_llds.search.documents import Document
from verl_llds.search.tools import SearchResult

DOCUMENTS = (Document("7", "Paris\nCapital"),)


@pytest.mark.parametrize("status", [429, 500, 501, 502, 503, 504])
async def test_passing_trouble_is_tried_again(server, ask, status: int) -> None:
    server.script = [status, status, 200]
    assert await ask() == SearchResult(documents=DOCUMENTS, attempts=3)
    assert len(server.bodies) == 3


@pytest.mark.parametrize("status", [500, 502, 504])
async def test_failures_of_the_server_are_counted(server, ask, status: int) -> None:
    server.script = [status]
    with pytest.raises(RetrievalError, match=rf"after 3 attempt.*HTTP {status}") as refused:
        await ask(max_attempts=3)
    assert refused.value.attempts == len(server.bodies) == 3


async def test_attempts_beyond_the_breaker_s_patience_are_made(server, ask) -> None:
    server.script = [500] * 7 + [200]
    assert (await ask(max_attempts=8)).attempts == 8


async def test_a_server_that_is_busy_is_waited_for_beyond_max_attempts(server, ask) -> None:
    server.script = [503, 429] * 3 + [200]
    assert (await ask(max_attempts=1)).attempts == 7


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "3600"}, {"Retry-After": "0"}])
async def test_a_server_that_is_busy_for_ever_is_given_up_on(server, ask, headers: dict[str, str]) -> None:
    server.script = [(503, headers)]
    started = time.monotonic()
    with pytest.raises(RetrievalError, match=r"search\.max_wait_s=1 is over.*HTTP 503.*max_concurrency") as refused:
        await ask(max_attempts=1, max_wait_s=1.0)
    assert 0.9 < time.monotonic() - started < 1.0 + SLACK_S
    # The last request may be cut off before the server has read it.
    assert len(server.bodies) <= refused.value.attempts <= len(server.bodies) + 1 < 120


async def test_a_last_request_cut_short_does_not_hide_what_the_server_said(server, ask) -> None:
    server.script = [503, server.hang]
    with pytest.raises(
        RetrievalError, match=r"search\.max_wait_s=1 is over.*HTTP 503.*then no complete answer.*max_concurrency"
    ) as refused:
        await ask(max_attempts=1, max_wait_s=1.0)
    assert refused.value.attempts == 2


async def test_retry_after_in_seconds_is_waited_for(server, ask) -> None:
    server.script = [(503, {"Retry-After": "0.6"}), 200]
    assert (await ask()).attempts == 2
    assert server.times[1] - server.times[0] >= 0.6


async def test_retry_after_takes_the_place_of_the_backoff(server, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "backoff_s", lambda num_rounds, jitter: 20.0)
    server.script = [(503, {"Retry-After": "0.1"}), 200]
    assert (await asyncio.wait_for(ask(), 15)).attempts == 2


async def test_after_the_last_attempt_nothing_is_waited_for(server, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "backoff_s", lambda num_rounds, jitter: 20.0)
    server.script = [500]
    with pytest.raises(RetrievalError, match="after 1 attempt"):
        await asyncio.wait_for(ask(max_attempts=1), 15)


async def test_retry_after_as_a_date_is_waited_for(server, ask) -> None:
    def come_back(handler: BaseHTTPRequestHandler) -> None:
        # HTTP dates are whole seconds: two from now are between one and two.
        later = datetime.now(timezone.utc) + timedelta(seconds=2)
        server.send(handler, 503, {"Retry-After": format_datetime(later, usegmt=True)})

    server.script = [come_back, 200]
    assert (await ask()).attempts == 2
    assert server.times[1] - server.times[0] >= 0.9


async def test_a_pause_that_one_query_was_told_of_holds_for_all(server, make_client) -> None:
    server.script = [(503, {"Retry-After": "0.6"}), 200]
    client = make_client(server)
    first = asyncio.create_task(client.search("first"))
    await until(lambda: server.bodies and client._pool.retrievers._endpoints[0].held_back_by)
    await asyncio.gather(first, *(client.search(str(n)) for n in range(8)))
    assert min(server.times[1:]) - server.times[0] >= 0.6


async def test_a_busy_server_is_not_taken_for_dead(server, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_PAUSE_S", 20.0)
    server.script = [503] * 7 + [200]
    assert (await asyncio.wait_for(ask(), 15)).attempts == 8


async def test_a_hanging_server_times_out_and_is_tried_again(server, ask) -> None:
    server.script = [server.hang, 200]
    assert (await ask(timeout_s=1.0)).attempts == 2


def headers_then_nothing(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.flush()
    handler.rfile.read(1)


def refusal_then_nothing(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(500)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.rfile.read(1)


def trickle(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        time.sleep(0.05)


def trickle_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    while True:
        handler.send_header("X-More", "x")
        handler.flush_headers()
        time.sleep(0.05)


@pytest.mark.parametrize("slow", [headers_then_nothing, refusal_then_nothing, trickle, trickle_headers])
async def test_an_answer_that_does_not_end_times_out(server, ask, slow: Any) -> None:
    server.script = [slow]
    with pytest.raises(RetrievalError, match=r"after 2 attempt\(s\), 2 of them timeouts") as refused:
        await asyncio.wait_for(ask(timeout_s=0.5, max_attempts=2), 15)
    assert refused.value.attempts == 2
    # The server may read the second one only when it has been given up.
    await until(lambda: len(server.bodies) == 2)


async def test_a_timeout_names_the_setting(server, ask) -> None:
    server.script = [server.hang]
    with pytest.raises(RetrievalError, match=r"no complete answer within 0\.3 s.*search\.timeout_s"):
        await ask(timeout_s=0.3, max_attempts=1)


@pytest.mark.parametrize("slow", [headers_then_nothing, trickle])
async def test_max_wait_s_cuts_an_attempt_short(server, ask, slow: Any) -> None:
    server.script = [slow]
    started = time.monotonic()
    with pytest.raises(RetrievalError, match=r"after 1 attempt\(s\), and search\.max_wait_s=1 is over") as refused:
        await ask(timeout_s=30, max_wait_s=1.0)
    assert time.monotonic() - started < 1.0 + SLACK_S
    assert refused.value.attempts == 1


async def test_a_body_that_cannot_be_sent_does_not_outlast_max_wait_s(server, make_client) -> None:
    def read_nothing(request: Any) -> None:
        server.released.wait(20)

    server._handler.do_POST = read_nothing
    started = time.monotonic()
    with pytest.raises(RetrievalError, match="max_wait_s"):
        await make_client(server, timeout_s=30, max_wait_s=1.0).search("x" * 30_000_000)
    assert time.monotonic() - started < 1.0 + SLACK_S


async def test_hung_up_on_it_is_tried_again_beyond_max_attempts(server, ask) -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        handler.wfile.write(b'{"result"')
        handler.close_connection = True

    server.script = [server.hang_up, cut, server.hang_up, 200]
    assert (await ask(max_attempts=1)).attempts == 4
