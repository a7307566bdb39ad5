"""The process: bind, load, say ready, drain."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import Iterator

import uvicorn

from retriever_server.app import create_app
from retriever_server.batching import Batcher, Search
from retriever_server.encoder_spec import locate_encoder
from retriever_server.errors import AddressError
from retriever_server.manifest import Manifest, write_json
from retriever_server.settings import ServeSettings

_DRAIN_SECONDS = 30
# Uvicorn's own 5 s equals httpx's: both ends then drop an idle connection at the same moment, and a request
# sent into that moment fails. The end that listens must be the more patient one.
_KEEP_ALIVE_SECONDS = 75


def serve(settings: ServeSettings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in progress and return.

    Raises:
        AddressError: The address cannot be used.
        IndexMissingError, IndexMismatchError, EncoderError: The index cannot be served.
    """
    if settings.ready_file is not None:
        # One left by a killed server would point to nobody.
        settings.ready_file.unlink(missing_ok=True)
    manifest = Manifest.load(settings.index)
    manifest.check_files(settings.index)
    manifest.check_encoder(locate_encoder(settings.encoder or manifest.inputs.encoder.name))
    with contextlib.closing(bind(settings.host, settings.port)) as listener:
        try:
            asyncio.run(_serve(settings, manifest, listener))
        finally:
            if settings.ready_file is not None:
                settings.ready_file.unlink(missing_ok=True)


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to ``host:port``; port 0 takes a free one.

    Raises:
        AddressError: The port is in use, or the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AddressError(f"--host {host} is not an address of this machine ({error.strerror}).") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Bound sockets may share a port until one of them listens: listen now, so the second server is told.
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressError(
                f"port {port} on {host} is in use; stop the process that uses it, "
                "or choose another --port (0 takes a free one)."
            ) from error
        raise AddressError(f"cannot listen on {host} port {port} ({error.strerror}).") from error
    return listener


class _Server(uvicorn.Server):
    """Uvicorn, but a signal means a clean end: it would raise the signal again after the drain."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


async def _serve(settings: ServeSettings, manifest: Manifest, listener: socket.socket) -> None:
    def load() -> Search:
        # Torch and transformers take seconds to import; /health answers meanwhile.
        from retriever_server.engine import Engine

        return Engine.load(settings, manifest).search

    batcher = Batcher(load, max_batch=settings.max_batch, max_queue=settings.max_queue)
    server = _Server(
        uvicorn.Config(
            create_app(manifest, batcher, settings),
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=_DRAIN_SECONDS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
    )
    running = asyncio.create_task(server.serve(sockets=[listener]))
    announcing = asyncio.create_task(_announce(settings, manifest, batcher, server, listener))
    await asyncio.wait((running, announcing), return_when=asyncio.FIRST_COMPLETED)
    if announcing.done() and announcing.exception() is not None:
        server.should_exit = True
    await running
    if not announcing.done():
        announcing.cancel()
        return
    announcing.result()


async def _announce(
    settings: ServeSettings,
    manifest: Manifest,
    batcher: Batcher,
    server: uvicorn.Server,
    listener: socket.socket,
) -> None:
    """Say where the server is, once it listens and is warm. Raises what loading raised."""
    while not server.started:
        await asyncio.sleep(0.01)
    await batcher.wait_ready()
    url = url_of(listener)
    if settings.ready_file is not None:
        write_json(settings.ready_file, {"url": url, "pid": os.getpid()})
    print(f"serving {manifest.count} passages on {url}", flush=True)


def url_of(listener: socket.socket) -> str:
    """The URL under which a bound socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"
