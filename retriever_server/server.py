"""``retriever-server serve``: an index behind HTTP, in one process or several."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from retriever_server.cores import available_cores, share
from retriever_server.encoder_spec import locate_encoder
from retriever_server.info import describe
from retriever_server.listening import bind, url_of
from retriever_server.manifest import Manifest, write_json
from retriever_server.service import Service, run
from retriever_server.service_settings import ServiceSettings
from retriever_server.settings import ServeSettings
from retriever_server.stages import Stages
from retriever_server.worker_metrics import forget_worker
from retriever_server.workers import Workers

# The encoder cuts queries at as many characters per token, so cutting them earlier changes nothing.
_MAX_CHARS_PER_TOKEN = 64
# A batch is encoded while another is searched.
_STAGES = 2
# Where there is no encoder.
_MAX_CHARS = 1 << 15


def serve(settings: ServeSettings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in progress and return.

    Raises:
        AddressError: The address cannot be used.
        IndexMissingError, IndexMismatchError, EncoderError, SettingsError: The index cannot be served.
        WorkerError: A worker could not begin to serve.
    """
    if settings.threads is None and "OMP_NUM_THREADS" not in os.environ:
        settings = replace(settings, threads=share(available_cores(), _STAGES * settings.workers))
    serve_service(index_service(settings), settings)


def index_service(settings: ServeSettings) -> Service:
    """An index as a service, checked but not loaded.

    Raises:
        IndexMissingError, IndexMismatchError, EncoderError: The index cannot be served.
    """
    manifest = Manifest.load(settings.index)
    manifest.check_files(settings.index)
    encoder = manifest.inputs.encoder
    max_chars = _MAX_CHARS
    if encoder is not None:
        manifest.check_encoder(locate_encoder(settings.encoder or encoder.name))
        max_chars = encoder.max_length * _MAX_CHARS_PER_TOKEN
    info = describe(manifest, settings.shard, settings)

    def load() -> Stages[Any]:
        # Torch and transformers take seconds to import; /health answers meanwhile.
        from retriever_server.engine import Engine

        return Engine.load(settings, manifest)

    return Service(load=load, info=lambda: info, max_chars=max_chars)


def serve_service(service: Service, settings: ServiceSettings) -> None:
    """Serve in one process or several until SIGTERM or SIGINT, then finish the requests in progress and return.

    Raises:
        AddressError: The address cannot be used.
        WorkerError: A worker could not begin to serve.
    """
    listener = bind(settings.host, settings.port)
    url = url_of(listener)

    def announce() -> None:
        if settings.ready_file is not None:
            write_json(settings.ready_file, {"url": url, "pid": os.getpid()})
        info = service.info()
        what = f"{info.count} passages" if info.count else info.index_type
        print(f"serving {what} on {url}", flush=True)

    with contextlib.closing(listener), _only_while_serving(settings):
        if settings.workers == 1:
            run(service, settings, listener, announce)
        else:
            Workers(
                lambda tell: run(service, settings, listener, tell, load_first=True),
                listener,
                settings.workers,
                announce,
                forget_worker,
            ).run()


@contextlib.contextmanager
def _only_while_serving(settings: ServiceSettings) -> Iterator[None]:
    """Remove the ready file, also one that a killed server left: it would point to nobody."""
    if settings.ready_file is None:
        yield
        return
    settings.ready_file.unlink(missing_ok=True)
    try:
        yield
    finally:
        settings.ready_file.unlink(missing_ok=True)
