"""A real HTTP server that answers as scripted, and can be killed and started again on its port."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

# The tests of this folder share modules.
sys.path.insert(0, str(Path(__file__).parent))

from hand_clock import Clock

from verl_llds.search.client import SearchClient, backoff, endpoint
from verl_llds.search.settings import SearchConfig
from verl_llds.search.tools import SearchResult

FOUND = {"result": [[{"document": {"id": "7", "contents": "Paris\nCapital"}, "score": 0.9}]]}


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    # Hundreds of connections at once are to be taken, not dropped and tried again by the kernel a second later.
    request_queue_size = 256


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
        self.hung_up = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._http: _Listener | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body are written apart, which costs 40 ms otherwise.
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                with outer.lock:
                    outer._sockets.add(self.connection)

            def finish(self) -> None:
                with outer.lock:
                    outer._sockets.discard(self.connection)
                super().finish()

            def do_POST(self) -> None:
                try:
                    outer.answer(self)
                except OSError:
                    outer.hung_up.set()
                    self.close_connection = True

            def log_message(self, *args: Any) -> None:
                pass

        self._handler = Handler
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/retrieve"

    def start(self) -> None:
        """Listen on the port."""
        self._http = _Listener(("127.0.0.1", self.port), self._handler)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def kill(self) -> None:
        """Stop listening and cut every connection, as a killed process does."""
        if self._http is None:
            return
        self._http.shutdown()
        self._http.server_close()
        self._http = None
        with self.lock:
            for connected in self._sockets:
                try:
                    connected.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, status: int, headers: Any = None, body: Any = None) -> None:
        """Answer with a body, FOUND by default."""
        if body is None:
            body = FOUND if status == 200 else {"detail": "scripted"}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer with the next entry of the script."""
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

    def hang(self, handler: BaseHTTPRequestHandler) -> None:
        """Never answer: an entry for the script."""
        self.released.wait(20)
        handler.close_connection = True

    @staticmethod
    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        """Close the connection without an answer: an entry for the script."""
        handler.close_connection = True


def _end(server: Server) -> None:
    server.released.set()
    server.kill()


@pytest.fixture
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "_FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(endpoint, "_FIRST_PAUSE_S", 0.05)


@pytest.fixture
def stopped() -> Iterator[Server]:
    """Return a server that does not listen yet."""
    server = Server()
    yield server
    _end(server)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    _end(server)


@pytest.fixture
def second() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    _end(server)


@pytest.fixture
async def make_client(_short_waits: None) -> AsyncIterator[Callable[..., SearchClient]]:
    """Make a client of one or more servers; other arguments are settings."""
    made: list[SearchClient] = []

    def make(*servers: Server, **settings: Any) -> SearchClient:
        made.append(SearchClient(SearchConfig(url=tuple(each.url for each in servers), **settings)))
        return made[-1]

    yield make
    for client in made:
        await client.close()


@pytest.fixture
def ask(server: Server, make_client: Callable[..., SearchClient]) -> Callable[..., Awaitable[SearchResult]]:
    """Search once with a client of the server; arguments are settings."""

    async def search(**settings: Any) -> SearchResult:
        return await make_client(server, **settings).search("who")

    return search


@pytest.fixture
def clock() -> Clock:
    return Clock()
