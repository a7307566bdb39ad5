"""Search-R1's wire format, without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_llds.search.client.wire import BadAnswerError, read_documents, request_body
from verl_llds.search.documents import Document

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["result", "document", "id", "contents", "score"]), inner, max_size=3)
    ),
    max_leaves=12,
)


def answer(value: object) -> bytes:
    return json.dumps(value).encode()


def test_request_is_search_r1_s() -> None:
    assert request_body("who", 5) == {"queries": ["who"], "topk": 5, "return_scores": True}


def test_halves_of_surrogate_pairs_are_replaced_and_nothing_else() -> None:
    body = request_body("a\ud800b\udc00 \x00 é \U0001f600", 3)
    assert body["queries"] == ["a?b? \x00 é \U0001f600"]


@given(st.text(st.characters(exclude_categories=())))
def test_every_query_can_be_sent_as_utf_8(query: str) -> None:
    json.dumps(request_body(query, 3), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("hits", "found"),
    [
        ([{"document": {"id": "7", "contents": "a\nb"}, "score": 1.0}], (Document("7", "a\nb"),)),
        ([{"id": 7, "contents": "a\nb"}], (Document("7", "a\nb"),)),
        ([{"contents": "a"}, {"document": {"contents": "b", "id": None}}], (Document("", "a"), Document("", "b"))),
        ([{"contents": "half a pair: \ud83d"}], (Document("", "half a pair: ?"),)),
        ([], ()),
    ],
)
def test_scored_and_bare_documents_are_read(hits: Any, found: tuple[Document, ...]) -> None:
    assert read_documents(answer({"result": [hits]}), 3) == found


def test_more_hits_than_asked_for_are_cut() -> None:
    hits = [{"id": str(n), "contents": "text"} for n in range(9)]
    assert [document.id for document in read_documents(answer({"result": [hits]}), 4)] == list("0123")


@pytest.mark.parametrize(
    "value",
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
        {"result": "x"},
        {"result": {"x": []}},
        {"result": ["passage"]},
        {"result": [["passage"]]},
        {"result": [[None]]},
        {"result": [[{"document": None}]]},
        {"result": [[{"document": {"id": "1"}}]]},
        {"result": [[{"document": {"id": "1", "contents": None}}]]},
        {"result": [[{"document": {"id": "1", "contents": ["a"]}}]]},
        {"result": [[{"score": 1.0}]]},
        {"detail": "error"},
    ],
)
def test_an_answer_in_another_format_is_shown_with_the_format(value: Any) -> None:
    with pytest.raises(BadAnswerError, match="not in Search-R1's format") as refused:
        read_documents(answer(value), 3)
    assert repr(json.dumps(value)) in str(refused.value)


@pytest.mark.parametrize("garbage", [b"<html>", b"", b"\xff\xfe{", b"{", b"[" * 100_000, b"9" * 5000])
def test_garbage_is_a_bad_answer(garbage: bytes) -> None:
    with pytest.raises(BadAnswerError) as refused:
        read_documents(garbage, 3)
    assert len(str(refused.value)) < 1000


@given(JSON.map(answer) | st.binary())
def test_whatever_is_answered_is_read_or_refused(body: bytes) -> None:
    try:
        found = read_documents(body, 2)
    except BadAnswerError:
        return
    assert len(found) <= 2
    for document in found:
        (document.id + document.contents).encode()


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",))), max_size=5))
def test_what_a_server_writes_is_what_is_read(texts: list[str]) -> None:
    hits = [{"document": {"id": str(n), "contents": text}, "score": 0.5} for n, text in enumerate(texts)]
    assert [each.contents for each in read_documents(answer({"result": [hits]}), 5)] == texts
