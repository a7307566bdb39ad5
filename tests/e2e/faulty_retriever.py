"""A retriever that goes wrong in the ways real ones do, one way at a time."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

POISON = "poison from an error text"
"""Stands in every wrong answer; no trajectory may ever show it."""

PASSAGE = {"document": {"id": "0", "contents": "France\nThe capital of France is Paris."}, "score": 1.0}
RIGHT = json.dumps({"result": [[PASSAGE]]}).encode()
WRONG = {"id": "9", "contents": f"Wrong\n{POISON}"}

Answer = Callable[[BaseHTTPRequestHandler], None]


def reply(status: int, body: bytes, **headers: str) -> Answer:
    """Answer with this."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        with suppress(ConnectionError):
            handler.wfile.write(body)

    return answer


def huge(handler: BaseHTTPRequestHandler) -> None:
    """Send 100 MB of text, as far as anybody listens."""
    handler.send_response(200)
    handler.end_headers()
    with suppress(ConnectionError):
        handler.wfile.write(b'{"result": [[{"document": {"id": "9", "contents": "Wrong\\n')
        for _ in range(100):
            handler.wfile.write(f"{POISON} ".encode() * (1_000_000 // len(POISON)))
        handler.wfile.write(b'"}}]]}')


def hang(handler: BaseHTTPRequestHandler) -> None:
    """Never answer."""
    time.sleep(20)


def slam(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection without a word."""
    handler.close_connection = True
    handler.connection.close()


FAULTS: dict[str, Answer] = {
    "fine": reply(200, RIGHT),
    "error_500": reply(500, json.dumps({"detail": POISON}).encode()),
    "busy_503": reply(503, json.dumps({"detail": POISON}).encode(), Retry_After="1"),
    "garbage": reply(200, f"<html>{POISON}</html>".encode()),
    "wrong_number": reply(200, json.dumps({"result": [[PASSAGE], [{"document": WRONG, "score": 0.5}]]}).encode()),
    "empty": reply(200, b'{"result": [[]]}'),
    "huge": huge,
    "hang": hang,
    "slam": slam,
}


class FaultyRetriever:
    """Answers with the present fault every ``every``-th time, and rightly otherwise."""

    def __init__(self) -> None:
        self.fault, self.every = "fine", 1
        self._numbers = itertools.count()
        self._since = time.monotonic()
        self._for_s = float("inf")
        retriever = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                retriever._pick()(self)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/retrieve"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def set(self, fault: str, every: int = 1, for_s: float = float("inf")) -> None:
        """Go wrong in this way from now on, or for so many seconds after the next request."""
        self.fault, self.every, self._for_s, self._since = fault, every, for_s, float("nan")

    def _pick(self) -> Answer:
        now = time.monotonic()
        if self._since != self._since:
            self._since = now
        is_over = now - self._since > self._for_s
        return FAULTS["fine" if is_over or next(self._numbers) % self.every else self.fault]

    def close(self) -> None:
        """Stop listening."""
        self._http.shutdown()
        self._http.server_close()
