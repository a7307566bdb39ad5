"""What the client asks, and what it makes of an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from verl_llds.errors import RetrievalError
from verl_llds.search.client import SearchClient
from verl_llds.search.protocol import Document
from verl_llds.search.settings import SearchConfig

DOCUMENTS = [Document("7", "Paris\nCapital")]


async def test_request_is_search_r1_s(server, ask) -> None:
    assert await ask(topk=5) == DOCUMENTS
    assert server.bodies == [{"queries": ["who"], "topk": 5, "return_scores": True}]


@pytest.mark.parametrize(
    ("hits", "found"),
    [
        ([{"document": {"id": "7", "contents": "a\nb"}, "score": 1.0}], [Document("7", "a\nb")]),
        ([{"id": 7, "contents": "a\nb"}], [Document("7", "a\nb")]),
        (
            [{"contents": "a"}, {"document": {"contents": "b", "title": "t"}}],
            [Document("", c) for c in "ab"],
        ),
        ([], []),
    ],
)
async def test_scored_and_bare_documents(server, ask, hits: Any, found: list[Document]) -> None:
    server.script = [(200, None, {"result": [hits]})]
    assert await ask() == found


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        None,
        "text",
        {"result": []},
        {"result": None},
        {"result": [[], []]},
        {"result": [None]},
        {"result": [""]},
        {"result": [{}]},
        {"result": ["passage"]},
        {"result": [["passage"]]},
        {"result": [[{"document": None}]]},
        {"result": [[{"document": {"id": "1"}}]]},
        {"result": [[{"document": {"id": "1", "contents": None}}]]},
        {"result": [[{"score": 1.0}]]},
        {"detail": "error"},
    ],
)
async def test_malformed_answers_are_typed_and_not_asked_for_again(server, ask, answer: Any) -> None:
    server.script = [(200, None, json.dumps(answer).encode())]
    with pytest.raises(RetrievalError, match="not in Search-R1's format") as refused:
        await ask()
    assert server.url in str(refused.value)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("garbage", [b"<html>", b"", b"\xff\xfe{", b"{"])
async def test_garbage_is_not_asked_for_again(server, ask, garbage: bytes) -> None:
    server.script = [(200, None, garbage)]
    with pytest.raises(RetrievalError, match=r"after 1 attempt.*Error") as refused:
        await ask()
    assert server.url in str(refused.value)
    assert isinstance(refused.value.__cause__, ValueError)
    assert len(server.bodies) == 1


async def test_broken_compression_is_typed(server, ask) -> None:
    server.script = [(200, {"Content-Encoding": "gzip"}, b"no gzip")]
    with pytest.raises(RetrievalError, match="content-encoding"):
        await ask(max_attempts=2)


@pytest.mark.parametrize("status", [307, 400, 404, 413, 422, 501])
async def test_the_request_s_own_fault_is_not_tried_again(server, ask, status: int) -> None:
    server.script = [(status, None, {"detail": "topk too large"}), 200]
    with pytest.raises(RetrievalError, match=rf"after 1 attempt.*HTTP {status}.*topk too large") as refused:
        await ask()
    assert server.url in str(refused.value)
    assert len(server.bodies) == 1


def test_repr_names_the_server() -> None:
    assert repr(SearchClient(SearchConfig(url="http://h/retrieve"))) == "SearchClient('http://h/retrieve')"


async def test_proxies_in_the_environment_are_unused(server, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert await ask(max_attempts=1) == DOCUMENTS
