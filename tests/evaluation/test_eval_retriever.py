"""Which corpus a retriever serves, asked of one that says so and of one that does not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from verl_llds.errors import EvaluationError, RetrievalError
from verl_llds.evaluation.retriever import check_served, retrieve_url
from verl_llds.search.settings import SearchConfig

CORPUS = "ab12" * 16
INFO = {"corpus_sha256": CORPUS, "index_type": "flat", "count": 7, "encoder": {"name": "e5"}}
ANSWER = {"result": [[{"document": {"id": "0", "contents": "T\nText"}, "score": 1.0}]]}


@contextmanager
def retriever(info: object | None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(200, ANSWER)

        def do_GET(self) -> None:
            self.reply(404 if info is None else 200, info)

        def reply(self, status: int, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/retrieve"
    finally:
        http.shutdown()
        http.server_close()


def test_what_is_served_is_told() -> None:
    with retriever(INFO) as url:
        served = check_served(SearchConfig(url=url), CORPUS[:8])
    assert served.facts() == {"corpus_sha256": CORPUS, "index_type": "flat", "encoder": "e5", "count": 7}


def test_another_corpus_is_refused() -> None:
    with (
        retriever(INFO) as url,
        pytest.raises(EvaluationError, match=r"serves the corpus ab12ab12ab12 \(7 passages, flat"),
    ):
        check_served(SearchConfig(url=url), "deadbeef")


def test_a_server_that_does_not_say_is_taken_unless_a_corpus_is_expected() -> None:
    with retriever(None) as url:
        assert check_served(SearchConfig(url=url), None).corpus_sha256 == ""
        with pytest.raises(EvaluationError, match="does not say which corpus it serves"):
            check_served(SearchConfig(url=url), "deadbeef")


def test_two_corpora_are_not_one_evaluation() -> None:
    other = {**INFO, "corpus_sha256": "cd34" * 16}
    with retriever(INFO) as first, retriever(other) as second, pytest.raises(EvaluationError, match="cd34cd34"):
        check_served(SearchConfig(url=(first, second)), None)


@pytest.mark.parametrize("info", [{}, [], {"corpus_sha256": 1, "index_type": "flat", "count": "many"}])
def test_nonsense_at_info_is_said(info: object) -> None:
    with retriever(info) as url, pytest.raises(EvaluationError, match="/info does not say what it serves"):
        check_served(SearchConfig(url=url), None)


def test_a_retriever_that_is_not_there_is_said() -> None:
    with pytest.raises(RetrievalError, match=r"127\.0\.0\.1:9"):
        check_served(SearchConfig(url="http://127.0.0.1:9/retrieve", max_wait_s=1), None)


@pytest.mark.parametrize("address", ["http://h:1", "http://h:1/", "http://h:1/retrieve", "http://h:1/retrieve/"])
def test_addresses_with_and_without_the_path(address: str) -> None:
    assert retrieve_url(address) == "http://h:1/retrieve"
