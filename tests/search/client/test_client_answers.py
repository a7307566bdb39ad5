"""What the client asks, and what it makes of an answer."""

from __future__ import annotations

import asyncio
import gzip
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from verl_llds.errors import RetrievalError
from verl_llds.search.client import SearchClient
from verl_llds.search.client.attempt import MAX_ANSWER_BYTES, TOKEN_VARIABLE, open_session
from verl_llds.search.documents import Document
from verl_llds.search.settings import SearchConfig
from verl_llds.search.tools import SearchResult

DOCUMENTS = (Document("7", "Paris\nCapital"),)
ONE_REQUEST = SearchResult(documents=DOCUMENTS, attempts=1)
HIT = {"document": {"id": "7", "contents": "Paris\nCapital"}, "score": 0.9}


async def test_what_is_posted_is_search_r1_s(server, ask) -> None:
    assert await ask(topk=5) == ONE_REQUEST
    assert server.bodies == [{"queries": ["who"], "topk": 5, "return_scores": True}]


@pytest.mark.parametrize("query", ["\ud800", "a\udfffb", "\x00", "", "é\U0001f600", '"}\r\n\r\n'])
async def test_any_text_is_a_query(server, make_client, query: str) -> None:
    assert await make_client(server).search(query) == ONE_REQUEST
    (body,) = server.bodies
    assert body["queries"] == [query.encode(errors="replace").decode()]


async def test_no_passages_is_an_answer(server, ask) -> None:
    server.script = [(200, None, {"result": [[]]})]
    assert await ask() == SearchResult(documents=(), attempts=1)


async def test_more_passages_than_asked_for_are_cut(server, ask) -> None:
    server.script = [(200, None, {"result": [[HIT] * 9]})]
    assert (await ask(topk=2)).documents == DOCUMENTS * 2


@pytest.mark.parametrize(
    "bad",
    [
        (200, None, b"<html>"),
        (200, None, b""),
        (200, None, {"result": [[HIT], [HIT]]}),
        (200, None, {"result": []}),
        (200, None, {"result": [[{"document": {"id": "7"}}]]}),
        (204, {"Content-Length": "0"}, b""),
        (200, {"Content-Encoding": "gzip"}, b"no gzip"),
    ],
)
async def test_a_bad_answer_is_asked_for_again(server, ask, bad: Any) -> None:
    server.script = [bad, bad, 200]
    assert await ask(max_attempts=3) == SearchResult(documents=DOCUMENTS, attempts=3)


@pytest.mark.parametrize("body", [b"<html>", b'{"result": [[], []]}', b'{"result": [[{"document": {"id": "1"}}]]}'])
async def test_bad_answers_are_given_up_on(server, ask, body: bytes) -> None:
    server.script = [(200, None, body)]
    with pytest.raises(RetrievalError, match=r"after 3 attempt\(s\), 3 of them timeouts or bad") as refused:
        await ask(max_attempts=3)
    assert refused.value.attempts == len(server.bodies) == 3
    assert f"{server.url}: the answer is not in Search-R1's format" in str(refused.value)
    assert repr(body.decode()) in str(refused.value)


async def test_a_server_that_speaks_no_http_gives_a_bad_answer(server, ask) -> None:
    def babble(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"220 mail.example.org ESMTP\r\n\r\n")
        handler.close_connection = True

    server.script = [babble]
    with pytest.raises(RetrievalError, match=r"2 of them timeouts or bad answers"):
        await ask(max_attempts=2)


@pytest.mark.parametrize("body", [gzip.compress(b'{"result": [[]]}'), b"no gzip"])
async def test_a_compressed_answer_is_not_unpacked(server, ask, body: bytes) -> None:
    server.script = [(200, {"Content-Encoding": "gzip"}, body)]
    with pytest.raises(RetrievalError, match=r"after 1 attempt.*Content-Encoding 'gzip'"):
        await ask(max_attempts=1)


async def test_the_pool_unpacks_nothing_on_its_own() -> None:
    async with open_session(1) as http:
        assert not http.auto_decompress


@pytest.mark.parametrize(("token", "sent"), [("secret\n", "Bearer secret"), ("", None)])
async def test_a_token_of_the_environment_is_sent(
    server, ask, monkeypatch: pytest.MonkeyPatch, token: str, sent: str | None
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    seen: list[str | None] = []

    def look(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["Authorization"])
        server.send(handler, 200)

    server.script = [look]
    await ask()
    assert seen == [sent]


def pour(handler: BaseHTTPRequestHandler) -> None:
    """Send 100 MB in chunks."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for _ in range(1600):
        handler.wfile.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")


def announce(handler: BaseHTTPRequestHandler) -> None:
    """Send 100 MB with their length."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(1600 * 0x10000))
    handler.end_headers()
    for _ in range(1600):
        handler.wfile.write(b" " * 0x10000)


@pytest.mark.parametrize("flood", [pour, announce])
async def test_an_endless_answer_is_hung_up_on(server, ask, flood: Any) -> None:
    server.script = [flood]
    with pytest.raises(RetrievalError, match=r"longer than the limit of 16 MiB"):
        await ask(max_attempts=1)
    assert await asyncio.to_thread(server.hung_up.wait, 10)


async def test_an_answer_up_to_the_limit_is_read(server, ask) -> None:
    body = b'{"result": [[]]}'
    server.script = [(200, None, body.ljust(MAX_ANSWER_BYTES)), (200, None, body.ljust(MAX_ANSWER_BYTES + 1))]
    assert await ask() == SearchResult(documents=(), attempts=1)
    with pytest.raises(RetrievalError, match="16 MiB"):
        await ask(max_attempts=1)


@pytest.mark.parametrize(
    ("status", "advice"),
    [(status, "Correct search.topk") for status in (400, 413, 422)]
    + [(status, "Correct search.url, or RETRIEVER_TOKEN") for status in (302, 307, 401, 403, 404, 405)],
)
async def test_the_request_s_own_fault_is_not_tried_again(server, ask, status: int, advice: str) -> None:
    server.script = [(status, {"Location": "/elsewhere"}, {"detail": "topk too large"}), 200]
    with pytest.raises(
        RetrievalError, match=rf"after 1 attempt.*HTTP {status} to /elsewhere.*topk too large"
    ) as refused:
        await ask()
    assert server.url in str(refused.value)
    assert advice in str(refused.value)
    assert refused.value.attempts == len(server.bodies) == 1


async def test_proxies_in_the_environment_are_unused(server, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert await ask(max_wait_s=5) == ONE_REQUEST


def test_repr_names_the_servers() -> None:
    assert repr(SearchClient(SearchConfig(url="http://h/retrieve"))) == "SearchClient('http://h/retrieve')"
    assert repr(SearchClient(SearchConfig(url=("http://a", "http://b")))) == "SearchClient('http://a', 'http://b')"
