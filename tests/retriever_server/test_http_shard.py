"""Shards behind HTTP: one poisoned query fails alone, a server that hangs is left alone, a wrong token is said."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import uvicorn
from stub_engine import Stub, started, texts

from retriever_server.app import create_app
from retriever_server.batching import Batcher
from retriever_server.cli_serve import run_front
from retriever_server.errors import SearchFailedError, ShardError, ShardTokenError
from retriever_server.front import front_service
from retriever_server.front_settings import FrontSettings
from retriever_server.http_shard import HttpShard
from retriever_server.listening import bind, url_of
from retriever_server.merging import MergedShards
from retriever_server.metrics import Metrics
from retriever_server.service_settings import ServiceSettings


@contextmanager
def serving(stub: Any, **settings: Any) -> Iterator[str]:
    """The service itself over an engine of the test, in a thread."""
    service, metrics = ServiceSettings(cache_size=0, **settings), Metrics()
    batcher = Batcher(lambda: stub, service, metrics)

    def info() -> Any:
        raise AssertionError("nobody asks")

    config = uvicorn.Config(create_app(info, batcher, service, metrics), log_level="error", ws="none")
    server = uvicorn.Server(config)
    with bind("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not batcher.ready:
                time.sleep(0.01)
            yield url_of(listener)
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture
def serve(stub: Stub) -> Iterator[Callable[..., str]]:
    with ExitStack() as running:
        yield lambda engine, **settings: running.enter_context(serving(engine, **settings))


@pytest.fixture
def hung() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with bind("127.0.0.1", 0) as listener:
        yield url_of(listener)


class Freezing(BaseHTTPRequestHandler):
    """Answers three requests at once, over three connections that it keeps, and then no more."""

    protocol_version = "HTTP/1.1"
    barrier = threading.Barrier(3)
    frozen = threading.Event()
    thawed = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if self.frozen.is_set():
            self.thawed.wait(30)
            return
        self.barrier.wait(30)
        self.send_response(200)
        self.send_header("Content-Length", "15")
        self.end_headers()
        self.wfile.write(b'{"result":[[]]}')

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def working() -> Stub:
    stub = Stub()
    stub.encoding.gate.set()
    return stub


async def test_a_poisoned_query_fails_alone_behind_a_front(serve: Callable[..., str]) -> None:
    urls = [serve(working()), serve(working())]
    front = await started(MergedShards([HttpShard([url], None, timeout_s=25) for url in urls], num_threads=1))
    queries = ["a", "b", "poison", "c", "toxin", "d"]
    found = await asyncio.gather(*[front.submit([query], 1) for query in queries], return_exceptions=True)
    await front.close()
    for query, answer in zip(queries, found, strict=True):
        if query in ("poison", "toxin"):
            assert isinstance(answer, SearchFailedError)
        else:
            assert not isinstance(answer, BaseException), (query, answer)
            assert texts(answer) == [query]


async def test_more_than_a_shard_takes_at_a_time_is_halved(serve: Callable[..., str]) -> None:
    url = serve(working(), max_queue=4)
    front = await started(MergedShards([HttpShard([url], None, timeout_s=25)], num_threads=1))
    queries = [str(number) for number in range(32)]
    assert texts(await front.submit(queries, 1)) == queries
    await front.close()


def test_what_one_replica_fails_on_another_may_answer(serve: Callable[..., str]) -> None:
    class Broken(Stub):
        def find(self, encoded: list[str], topk: int) -> Any:
            if encoded != ["warm-up"]:
                raise RuntimeError("the device is gone")
            return super().find(encoded, topk)

    broken, whole = Broken(), working()
    broken.encoding.gate.set()
    shard = HttpShard([serve(broken), serve(whole)], None, timeout_s=20)
    for _ in range(4):
        assert shard.search(["a"], 1)[0][0].document == b'"a"'
    assert len(whole.batches) == 4


@pytest.mark.parametrize("how", ["the process hangs", "the engine hangs"])
def test_a_replica_that_hangs_is_asked_after_the_others(
    serve: Callable[..., str], hung: str, stub: Stub, how: str
) -> None:
    shard = HttpShard([hung if how == "the process hangs" else serve(stub), serve(working())], None, timeout_s=2)
    seconds = []
    for number in range(6):
        start = time.monotonic()
        shard.search([str(number)], 1)
        seconds.append(time.monotonic() - start)
    stub.encoding.gate.set()
    assert seconds[0] >= 0.9
    assert max(seconds[1:]) < 0.9, seconds


def test_the_only_replica_is_asked_however_it_hung(hung: str) -> None:
    shard = HttpShard([hung], None, timeout_s=0.2)
    for _ in range(2):
        with pytest.raises(ShardError, match="TimeoutError"):
            shard.search(["a"], 1)


def test_a_server_that_freezes_costs_one_timeout_however_many_connections_are_kept() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Freezing) as server:
        threading.Thread(target=server.serve_forever).start()
        shard = HttpShard([f"http://127.0.0.1:{server.server_port}"], None, timeout_s=1)
        threads = [threading.Thread(target=shard.search, args=(["a"], 1)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        Freezing.frozen.set()
        start = time.monotonic()
        with pytest.raises(ShardError, match="TimeoutError"):
            shard.search(["a"], 1)
        assert time.monotonic() - start < 2
        Freezing.thawed.set()
        server.shutdown()


def test_a_front_that_is_not_let_in_ends_at_once_and_names_the_token(serve: Callable[..., str]) -> None:
    url = serve(working(), token="s3cret")
    settings = FrontSettings.parse(url, shard_token="another")
    with pytest.raises(ShardTokenError, match=r"HTTP 401.*--shard-token-file or RETRIEVER_TOKEN"):
        front_service(settings).load()
    assert HttpShard([url], "s3cret", timeout_s=20).search(["a"], 1)


def test_a_front_says_once_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("retriever_server.front.START_S", 1.2)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = url_of(closed)
    with pytest.raises(ShardError):
        front_service(FrontSettings.parse(url)).load()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"retriever-server: waiting, since no server of a shard answers ({url}: ConnectionRefused")


def test_the_token_of_the_environment_is_the_shards_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVER_TOKEN", "s3cret")
    given: list[FrontSettings] = []
    monkeypatch.setattr("retriever_server.front.serve_front", given.append)
    run_front({"token_file": None, "shard_token_file": None, "shards": "http://a:1", "workers": 1})
    assert given[0].shard_token == "s3cret"
