"""Uvicorn's server, ending so that no request it accepted is lost."""

import asyncio
import contextlib
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

import uvicorn

from retriever_server.batching import Batcher

# A client of a kept connection may be sending just now; this long it is listened to.
_GRACE_S = 0.5
# Beyond the drain itself: what closing takes.
_CLOSING_S = 5


class DrainingServer(uvicorn.Server):
    """Serves ``listener``, and on SIGTERM or SIGINT answers what was accepted, for ``drain_s`` seconds at most.

    From then on every answer closes its connection. A signal means a clean end, with exit status 0; only an engine
    that hangs is ended by force, with status 1. While the engine loads every request is refused, and there is nothing
    to wait for: the process ends at once.
    """

    def __init__(self, config: uvicorn.Config, listener: socket.socket, batcher: Batcher, drain_s: float) -> None:
        super().__init__(config)
        config.timeout_graceful_shutdown = math.ceil(drain_s) + 1
        self._listener = listener
        self._batcher = batcher
        self._drain_s = drain_s

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals as a wish to end; uvicorn would raise them again after the drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def run_on_listener(self) -> None:
        """Serve until told to end."""
        # A duplicate: uvicorn closes it first, and what is in the kernel's queue by then must not be lost.
        with contextlib.closing(self._listener.dup()) as duplicate:
            await self.serve(sockets=[duplicate])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain."""
        hanging = threading.Timer(self._drain_s + _GRACE_S + _CLOSING_S, os._exit, [1])
        hanging.daemon = True
        hanging.start()
        self._batcher.drain(self._drain_s)
        self._announce_close()
        for server in self.servers:
            server.close()
        for duplicate in sockets or []:
            duplicate.close()
        # An event loop may close its handle only in its next round.
        await asyncio.sleep(0)
        await self._accept_queued()
        await self._hear_out()
        if self._batcher.loading:
            _leave()
        await super().shutdown(sockets)
        hanging.cancel()

    def _announce_close(self) -> None:
        # Who is not told sends the next request into a connection that is being closed.
        headers = [*self.server_state.default_headers, (b"connection", b"close")]
        self.server_state.default_headers = headers
        for connection in self.server_state.connections:
            if connection.cycle is not None:  # type: ignore[union-attr]
                connection.cycle.default_headers = headers  # type: ignore[union-attr]

    async def _accept_queued(self) -> None:
        loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            connection.setblocking(False)
            await loop.connect_accepted_socket(
                lambda: self.config.http_protocol_class(  # type: ignore[call-arg]
                    config=self.config, server_state=self.server_state, app_state=self.lifespan.state
                ),
                connection,
            )
        self._listener.close()

    async def _hear_out(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + _GRACE_S
        while loop.time() < end and any(
            connection.cycle is None or connection.cycle.response_complete  # type: ignore[union-attr]
            for connection in self.server_state.connections
        ):
            await asyncio.sleep(0.02)


def _leave() -> NoReturn:
    """End without waiting for the thread that loads: it cannot be interrupted."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
