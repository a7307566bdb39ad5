"""One process that answers queries: bind, load, say ready, serve, drain."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvicorn

from retriever_server.app import create_app
from retriever_server.batching import Batcher
from retriever_server.draining import DrainingServer
from retriever_server.info import Info
from retriever_server.metrics import Metrics
from retriever_server.protocol import patient_protocol
from retriever_server.service_settings import ServiceSettings
from retriever_server.stages import Stages

# Uvicorn's own 5 s equals httpx's: both ends then drop an idle connection at the same moment, and a request
# sent into that moment fails. The end that listens must be the more patient one.
_KEEP_ALIVE_SECONDS = 75


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """What a process serves."""

    load: Callable[[], Stages[Any]]
    """Loads the retrieval method; called once, off the event loop."""

    info: Callable[[], Info]
    """What ``/info`` says; called once the method is loaded."""

    max_chars: int
    """How much of a query the method may read; the rest is cut off when it arrives."""

    num_finders: int = 1
    """Threads that may search at once."""

    def batcher(self, settings: ServiceSettings, metrics: Metrics) -> Batcher:
        """What answers the queries of one event loop."""
        return Batcher(self.load, settings, metrics, max_chars=self.max_chars, num_finders=self.num_finders)


def run(
    service: Service,
    settings: ServiceSettings,
    listener: socket.socket,
    announce: Callable[[], None],
    *,
    load_first: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in progress. Closes ``listener``.

    Args:
        service: what is served.
        settings: how.
        listener: where.
        announce: called once, when queries are answered.
        load_first: accept no connection before that, since other processes can answer it.

    Raises what loading raised.
    """
    asyncio.run(_run(service, settings, listener, announce, load_first))


async def _run(
    service: Service,
    settings: ServiceSettings,
    listener: socket.socket,
    announce: Callable[[], None],
    load_first: bool,
) -> None:
    metrics = Metrics()
    batcher = service.batcher(settings, metrics)
    if load_first:
        await batcher.start()
        await batcher.wait_ready()
    config = uvicorn.Config(
        create_app(service.info, batcher, settings, metrics),
        http=patient_protocol(settings.read_timeout_s),
        ws="none",
        access_log=False,
        log_level="error",
        # Only a proxy that the service knows of could be believed about the client's address.
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )
    server = DrainingServer(config, listener, batcher, settings.drain_s)
    running = asyncio.create_task(server.run_on_listener())
    announcing = asyncio.create_task(_announce(batcher, server, announce))
    await asyncio.wait((running, announcing), return_when=asyncio.FIRST_COMPLETED)
    if announcing.done() and announcing.exception() is not None:
        server.should_exit = True
    await running
    if not announcing.done():
        announcing.cancel()
        return
    announcing.result()


async def _announce(batcher: Batcher, server: uvicorn.Server, announce: Callable[[], None]) -> None:
    while not server.started:
        await asyncio.sleep(0.01)
    await batcher.wait_ready()
    announce()
