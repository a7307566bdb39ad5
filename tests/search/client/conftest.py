"""A real HTTP server that answers as scripted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from verl_llds.search import client as client_module
from verl_llds.search.client import SearchClient
from verl_llds.search.protocol import Document
from verl_llds.search.settings import SearchConfig

FOUND = {"result": [[{"document": {"id": "7", "contents": "Paris\nCapital"}, "score": 0.9}]]}


class Server:
    """Answers with ``script`` in order, the last entry again and again.

    An entry is a status, or (status, headers), or (status, headers, body), or a function of the handler.
    """

    def __init__(self) -> None:
        self.script: list[Any] = [200]
        self.bodies: list[Any] = []
        self.times: list[float] = []
        self.connections: set[Any] = set()
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/retrieve"

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, status: int, headers: Any = None, body: Any = None) -> None:
        if body is None:
            body = FOUND if status == 200 else {"detail": "scripted"}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.bodies.append(body)
            self.times.append(time.monotonic())
            self.connections.add(handler.client_address)
            entry = self.script[min(len(self.bodies), len(self.script)) - 1]
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
        try:
            if callable(entry):
                entry(handler)
            else:
                self.send(handler, *(entry if isinstance(entry, tuple) else (entry,)))
        finally:
            with self.lock:
                self.busy -= 1


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(client_module, "_FIRST_BACKOFF_S", 0.01)
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.released.set()
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def ask(server: Server) -> Callable[..., Awaitable[list[Document]]]:
    """Search once with a client of the server; arguments are settings."""

    async def search(**settings: Any) -> list[Document]:
        client = SearchClient(SearchConfig(url=server.url, **settings))
        try:
            return await client.search("who")
        finally:
            await client.close()

    return search
