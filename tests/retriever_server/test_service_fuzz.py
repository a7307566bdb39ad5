"""Requests nobody would write: from the OpenAPI schema, and thousands that ignore it.

``RETRIEVER_FUZZ_REQUESTS=100000`` makes the second a long one: by vectors the encoder takes most of the time, by words
the service itself is what works.
"""

import asyncio
import json
import os
import random
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from retriever_server.build import build_index
from retriever_server.settings import BuildSettings, IndexType

NUM_PASSAGES = 30
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


OPERATIONS = [
    ("GET", "/health", GenerationMode.POSITIVE),
    ("GET", "/ready", GenerationMode.POSITIVE),
    ("GET", "/info", GenerationMode.POSITIVE),
    ("GET", "/metrics", GenerationMode.POSITIVE),
    ("POST", "/retrieve", GenerationMode.POSITIVE),
    ("POST", "/retrieve", GenerationMode.NEGATIVE),
]


def test_answers_are_what_the_schema_says(launch: Any, index_dir: Path) -> None:
    # Not through schemathesis's own pytest integration, which needs an older pytest.
    server = launch("serve", "--index", index_dir, "--threads", 1)
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    for method, path, mode in OPERATIONS:

        @hypothesis.settings(
            max_examples=int(os.environ.get("RETRIEVER_SCHEMA_EXAMPLES", "150")) if path == "/retrieve" else 5,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=schema[path][method].as_strategy(generation_mode=mode))
        def conforms(case: Any) -> None:
            response = case.call()
            # A deadline of a millisecond is refused rightly.
            assert response.status_code < 500 or response.status_code == 503, response.text
            case.validate_response(response, checks=CHECKS)

        conforms()


JUNK: list[Any] = [None, True, False, 0, -1, 1.5, 1e400, 2**63, 10**30, "", " ", "a", "3", "\0", "\ud800", "\udfff x"]
JUNK += ["\u202e\U0001f600" * 50, [], {}, [None], [[]], [{}], [["a"]], ["a", 5], {"a": 1}, "x" * 20_000, ["\ud800"] * 5]
FIELDS = ["queries", "query", "topk", "return_scores", "extra", "", "Queries", "__proto__"]


def text(rng: random.Random) -> str:
    kinds = [
        lambda: "".join(chr(rng.randrange(32, 127)) for _ in range(rng.randrange(80))),
        lambda: "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(20))),
        lambda: " ".join(rng.choice(["capital", "of", "Peru", "", "river"]) for _ in range(rng.randrange(40))),
        lambda: rng.choice([junk for junk in JUNK if isinstance(junk, str)]),
    ]
    return rng.choice(kinds)()


def body(rng: random.Random) -> bytes:
    """A request: a right one, or one with junk in its fields, or not even JSON."""
    value: Any = {"queries": [text(rng) for _ in range(rng.randrange(6))]}
    if rng.random() < 0.2:
        value = {"query": text(rng)}
    if rng.random() < 0.5:
        value["topk"] = rng.choice([None, 1, 3, 29, 30, 31, 100, 10**9])
    if rng.random() < 0.7:
        value["return_scores"] = rng.random() < 0.5
    if rng.random() < 0.4:
        value[rng.choice(FIELDS)] = rng.choice(JUNK)
    if rng.random() < 0.03:
        value = rng.choice(JUNK)
    data = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if rng.random() < 0.15 and data:
        mutable = bytearray(data)
        for _ in range(rng.randrange(1, 5)):
            mutable[rng.randrange(len(mutable))] = rng.randrange(256)
        data = bytes(mutable[: rng.randrange(len(mutable) + 1)] if rng.random() < 0.3 else mutable)
    return data


def check(sent: bytes, response: httpx.Response) -> None:
    assert response.status_code in (200, 422, 503), (sent, response.text)
    answer = response.json()
    if response.status_code != 200:
        assert list(answer) == ["error"]
        assert answer["error"]
        return
    asked = json.loads(sent)
    queries = asked["queries"] if asked.get("queries") is not None else [asked["query"]]
    assert len(answer["result"]) == len(queries)
    for hits in answer["result"]:
        documents = [hit["document"] if asked.get("return_scores", False) else hit for hit in hits]
        assert len(documents) == min(int(asked.get("topk") or 3), NUM_PASSAGES)
        assert len({document["id"] for document in documents}) == len(documents)
        assert all(set(document) == {"id", "contents"} for document in documents)


@pytest.fixture(scope="module")
def words_dir(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path) -> Path:
    out = tmp_path_factory.mktemp("words") / "idx"
    build_index(BuildSettings(corpus=corpus_file, out=out, type=IndexType.BM25))
    return out


@pytest.mark.parametrize("searched", ["index_dir", "words_dir"])
async def test_no_request_makes_an_error_of_the_server_or_lets_it_grow(
    request: pytest.FixtureRequest, launch: Any, searched: str
) -> None:
    # Without the cache, which may grow to 256 MB, and does with queries of 20,000 characters.
    index = request.getfixturevalue(searched)
    server = launch("serve", "--index", index, "--threads", 1, "--max-queue", 512, "--cache-size", 0)
    num_requests = int(os.environ.get("RETRIEVER_FUZZ_REQUESTS", "3000"))
    num_warm_up = num_requests // 3
    statuses: Counter[int] = Counter()
    limits = httpx.Limits(max_connections=16)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as http:

        async def fuzz(numbers: Iterator[int]) -> None:
            for number in numbers:
                sent = body(random.Random(number))
                response = await http.post("/retrieve", content=sent)
                check(sent, response)
                statuses[response.status_code] += 1

        for numbers in (range(num_warm_up), range(num_warm_up, num_requests)):
            before = rss_mb(server.process.pid)
            shared = iter(numbers)
            await asyncio.gather(*[fuzz(shared) for _ in range(16)])
        assert rss_mb(server.process.pid) < before + 150
    assert sum(statuses.values()) == num_requests
    assert min(statuses[200], statuses[422]) > num_requests / 10


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_what_is_not_http_does_not_disturb(launch: Any, index_dir: Path) -> None:
    server = launch("serve", "--index", index_dir, "--threads", 1)
    rng = random.Random(0)
    pieces = [
        b"POST /retrieve HTTP/1.1\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n",
        b"GET /%ff%00 HTTP/1.1\r\n",
        b"\r\n",
        b"\0",
    ]
    pieces += [b"Host: x\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n"]
    pieces += [b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"5\r\nabcde\r\n", b"ffffffffffffffff\r\n", b"{}{}{"]
    pieces += [
        b"Authorization: \xe9\r\n",
        b"X-Deadline-Ms: 5\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Expect: 100-continue\r\n",
    ]
    for _ in range(300):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(b"".join(rng.choices(pieces, k=rng.randrange(1, 8))) + b"\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            try:
                answer = connection.recv(1000)
            except OSError:
                continue
            assert not answer.startswith(b"HTTP/1.1 5"), answer
    assert httpx.post(f"{server.url}/retrieve", json={"queries": ["a"]}).status_code == 200
