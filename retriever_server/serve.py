"""The retriever on Ray Serve: shards with replicas, and one front that merges them.

    serve run retriever_server.serve:build index=/path/to/index num_shards=2 min_replicas=2 max_replicas=4

``/retrieve`` and the rest are those of ``retriever-server serve``. Needs the ``serve`` extra.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.handle import DeploymentHandle

from retriever_server.app import create_app
from retriever_server.batching import Batcher
from retriever_server.corpus import Hit
from retriever_server.errors import BusyError, ShardError
from retriever_server.front import MAX_CHARS, NUM_FINDERS, merge_infos
from retriever_server.info import Info
from retriever_server.merging import MergedShards
from retriever_server.metrics import Metrics
from retriever_server.server import index_service
from retriever_server.service_settings import ServiceSettings
from retriever_server.settings import ServeSettings
from retriever_server.shard import Shard

# Beyond Serve's default of 5 at a time no batches would form.
_MAX_ONGOING = 1024
_PAUSE_S = 0.5


class ShardReplica:
    """One process that searches one shard."""

    async def __init__(self, index: str, shard: str, threads: int) -> None:  # type: ignore[misc]
        settings = ServeSettings(index=Path(index), shard=Shard.parse(shard), threads=threads, cache_size=0)
        service = index_service(settings)
        self._info = service.info()
        self._batcher = service.batcher(settings, Metrics())
        await self._batcher.start()
        await self._batcher.wait_ready()

    def check_health(self) -> None:
        """Asked by Serve, which replaces a replica that raises."""
        if not self._batcher.ready:
            raise RuntimeError("the engine is not loaded")

    def info(self) -> dict[str, Any]:
        """What the shard is."""
        return self._info.model_dump()

    async def search(self, queries: list[str], topk: int) -> list[bytes]:
        """For each query the shard's best passages, as JSON with scores."""
        return [answer.scored for answer in await self._batcher.submit(queries, topk)]


class RayShard:
    """A shard of any number of replicas. Safe to use from several threads."""

    def __init__(self, handle: DeploymentHandle, *, timeout_s: float) -> None:
        self._handle = handle
        self._timeout_s = timeout_s

    def info(self) -> Info:
        """What a replica says of itself. Raises ShardError if none answers."""
        return Info.model_validate(self._ask(lambda: self._handle.info.remote()))

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """As of `ShardSearch`."""
        lists: list[bytes] = self._ask(lambda: self._handle.search.remote(list(queries), topk))
        return [
            [Hit(orjson.dumps(hit["document"]), float(hit["score"])) for hit in orjson.loads(found)] for found in lists
        ]

    def _ask(self, call: Callable[[], Any]) -> Any:
        end = time.monotonic() + self._timeout_s
        while True:
            try:
                return call().result(timeout_s=max(end - time.monotonic(), 0.001))
            except BusyError as error:
                raise ShardError(f"a shard is busy: {error}", "shard", error.retry_after_s) from error
            # Ray tells of a dead replica in many ways. Searching again, at another one, changes nothing.
            except Exception as error:
                if time.monotonic() + _PAUSE_S > end:
                    raise ShardError(f"no replica of a shard answers ({type(error).__name__})", "shard") from error
                time.sleep(_PAUSE_S)


class Front:
    """The HTTP service; it batches, caches and merges."""

    async def __init__(self, settings: dict[str, Any], *handles: DeploymentHandle) -> None:  # type: ignore[misc]
        self._settings = ServiceSettings(**settings)
        self._metrics = Metrics()
        shards = [RayShard(handle, timeout_s=self._settings.deadline_s) for handle in handles]
        infos: list[Info] = []

        def load() -> MergedShards:
            infos.extend(shard.info() for shard in shards)
            return MergedShards(shards, num_threads=NUM_FINDERS)

        self._batcher = Batcher(load, self._settings, self._metrics, max_chars=MAX_CHARS, num_finders=NUM_FINDERS)
        await self._batcher.start()
        await self._batcher.wait_ready()
        self._info = merge_infos(infos, self._settings)

    def __serve_build_asgi_app__(self) -> Any:
        """Asked by Serve once the constructor is done."""
        return create_app(lambda: self._info, self._batcher, self._settings, self._metrics)


def build(args: dict[str, Any]) -> serve.Application:
    """The application for ``serve run`` or `ray.serve.run`.

    Args:
        args: ``index`` (a directory every node can read); ``num_shards`` (1), ``min_replicas`` and ``max_replicas`` of
            each shard (1), ``target_ongoing_requests`` per replica before more are started (64), ``threads`` and
            ``num_cpus`` per replica (1), and whatever `ServiceSettings` has.

    Raises:
        SettingsError, TypeError, ValueError: An argument is not one of these, or is out of range.
    """
    rest = dict(args)
    index, num_shards = str(Path(rest.pop("index")).resolve()), int(rest.pop("num_shards", 1))
    low, high = int(rest.pop("min_replicas", 1)), int(rest.pop("max_replicas", 1))
    ongoing = float(rest.pop("target_ongoing_requests", 64))
    threads, num_cpus = int(rest.pop("threads", 1)), float(rest.pop("num_cpus", 1))
    ServiceSettings(**rest)
    scaling = AutoscalingConfig(min_replicas=low, max_replicas=max(low, high), target_ongoing_requests=ongoing)
    common = {
        "max_ongoing_requests": _MAX_ONGOING,
        "ray_actor_options": {"num_cpus": num_cpus},
        "logging_config": {"enable_access_log": False},
    }
    replica = serve.deployment(autoscaling_config=scaling, **common)(ShardReplica)
    shards = [
        replica.options(name=f"shard-{number}").bind(index, str(Shard(number, num_shards)), threads)
        for number in range(num_shards)
    ]
    return serve.deployment(**common)(serve.ingress()(Front)).bind(rest, *shards)
