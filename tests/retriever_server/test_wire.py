"""Search-R1's wire format, case by case, over a real index."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient


def retrieve(client: TestClient, **body: Any) -> Any:
    response = client.post("/retrieve", content=json.dumps(body))
    assert response.status_code == 200, response.text
    assert list(response.json()) == ["result"]
    return response.json()["result"]


def test_scored_documents(client: TestClient, passages: list[dict[str, str]]) -> None:
    (hits,) = retrieve(client, queries=["What is the capital of Peru?"], topk=2, return_scores=True)
    assert [sorted(hit) for hit in hits] == [["document", "score"]] * 2
    assert hits[0]["document"] == {"id": "p21", "contents": "Peru\nThe capital of Peru is Lima."}
    assert hits[0]["document"] in passages
    assert 1 > hits[0]["score"] > hits[1]["score"]


@pytest.mark.parametrize("flag", [{}, {"return_scores": False}])
@pytest.mark.parametrize("num_queries", [1, 2, 3])
def test_bare_documents(
    client: TestClient, passages: list[dict[str, str]], flag: dict[str, bool], num_queries: int
) -> None:
    queries = ["capital of Japan", "capital of Egypt", "capital of Norway"][:num_queries]
    result = retrieve(client, queries=queries, topk=1, **flag)
    assert [[document["id"] for document in documents] for documents in result] == [
        ["p15"],
        ["p27"],
        ["p24"],
    ][:num_queries]
    assert all(document in passages for documents in result for document in documents)


@pytest.mark.parametrize("topk", [{}, {"topk": None}, {"topk": 3}])
def test_three_passages_unless_told(client: TestClient, topk: dict[str, int | None]) -> None:
    assert [len(documents) for documents in retrieve(client, queries=["a", "b"], **topk)] == [3, 3]


@pytest.mark.parametrize("topk", [20, 21, 31, 10**9, 10**30])
def test_a_large_topk_gives_what_there_is_each_once(client: TestClient, topk: int) -> None:
    (documents,) = retrieve(client, queries=["capital"], topk=topk)
    assert len({document["id"] for document in documents}) == len(documents) == 20


@pytest.mark.parametrize("scored", [{}, {"return_scores": False}, {"return_scores": True}])
def test_a_single_query_is_answered_as_a_list_of_one(client: TestClient, scored: dict[str, bool]) -> None:
    single = retrieve(client, query="capital of Peru", topk=2, **scored)
    assert single == retrieve(client, queries=["capital of Peru"], topk=2, **scored)
    assert len(single) == 1
    assert ("score" in single[0][0]) is scored.get("return_scores", False)


def test_unknown_fields_are_ignored(client: TestClient) -> None:
    assert retrieve(client, queries=["a"], topk=1, user="me", query=None) == retrieve(client, queries=["a"], topk=1)


def test_no_queries_no_lists(client: TestClient) -> None:
    assert retrieve(client, queries=[]) == []


def test_one_list_a_query_in_order(client: TestClient) -> None:
    capitals = {"Rome": "p6", "Oslo": "p24", "Lima": "p21", "": None, "Cairo": "p27"}
    queries = [capital and f"{capital} is the capital of" for capital in capitals] * 3
    result = retrieve(client, queries=queries, topk=1)
    expected = list(capitals.values()) * 3
    assert len(result) == len(queries)
    for (document,), id in zip(result, expected, strict=True):
        assert id is None or document["id"] == id


@pytest.mark.parametrize(
    "query",
    ["", " ", "\0", "a\0b", "\ud800", "\udfff tail", "\U0001f600" * 300, "x" * 1_000_000, "a " * 50_000],
    ids=["empty", "blank", "nul", "nul-inside", "high", "low", "emoji", "long-word", "long-text"],
)
def test_any_string_is_a_query(client: TestClient, query: str) -> None:
    (documents,) = retrieve(client, queries=[query], topk=2)
    assert len(documents) == 2


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"queries": ["a"], "topk": 0}, "topk"),
        ({"queries": ["a"], "topk": -1}, "topk"),
        ({"queries": ["a"], "topk": 1.5}, "topk"),
        ({"queries": ["a"], "topk": "many"}, "topk"),
        ({"queries": ["a"], "topk": float("nan")}, "topk"),
        ({"queries": ["a"], "topk": float("inf")}, "topk"),
        ({"queries": "a"}, "queries"),
        ({"queries": None}, "queries"),
        ({"queries": [None]}, "queries.0"),
        ({"queries": ["a", 5]}, "queries.1"),
        ({"queries": ["a"], "return_scores": "perhaps"}, "return_scores"),
        ({"queries": ["a"], "topk": True}, "topk"),
        ({"queries": ["a"], "topk": "3"}, "topk"),
        ({"queries": ["a"], "return_scores": None}, "return_scores"),
        ({"queries": ["a"], "return_scores": 1}, "return_scores"),
        ({"queries": {"a": 1}}, "queries"),
        ({"query": ["a"]}, "query"),
        ({"query": 7}, "query"),
        ({"queries": ["a"], "query": "a"}, "query: given beside queries"),
        ({}, "queries"),
        ({"query": None}, "queries"),
        ({"queries": ["a"] * 65}, "more than 64"),
        (["a"], "body"),
        (None, "body"),
    ],
)
def test_a_wrong_body_is_422_in_json(client: TestClient, body: Any, says: str) -> None:
    response = client.post("/retrieve", content=json.dumps(body))
    assert response.status_code == 422
    assert list(response.json()) == ["error"]
    assert says in response.json()["error"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"queries": ["a"], "topk": ' + b"9" * 5000 + b"}"]
)
def test_what_is_not_json_is_422_in_json(client: TestClient, body: bytes) -> None:
    response = client.post("/retrieve", content=body)
    assert response.status_code == 422
    assert list(response.json()) == ["error"]


def test_a_huge_body_is_413(client: TestClient) -> None:
    response = client.post("/retrieve", json={"queries": ["x" * (17 << 20)]})
    assert response.status_code == 413
    assert "send fewer" in response.json()["error"]


def test_unknown_paths_and_methods_are_json(client: TestClient) -> None:
    assert client.get("/nowhere").json() == {"error": "Not Found"}
    response = client.get("/retrieve")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


def test_health_ready_info_and_schema(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}
    info = client.get("/info").json()
    assert info["count"] == 30
    assert (info["dim"], info["metric"], info["shard"]) == (384, "inner_product", "0/1")
    assert info["encoder"]["pooling"] == "mean"
    assert len(info["corpus_sha256"]) == 64
    assert (info["limits"]["topk"], info["limits"]["queries"], info["limits"]["passages"]) == (20, 64, 65_536)
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/health", "/ready", "/info", "/metrics", "/retrieve"}
    body = schema["paths"]["/retrieve"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"queries", "query", "topk", "return_scores"}
