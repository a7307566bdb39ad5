"""The retriever on Ray Serve: shards with replicas, and one front that merges them.

    serve run retriever_server.serve:build index=/path/to/index num_shards=2 min_replicas=2 max_replicas=4

``/retrieve`` and the rest are those of ``retriever-server serve``. Needs the ``serve`` extra.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson
from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.handle import DeploymentHandle

from retriever_server.app import create_app
from retriever_server.batching import Batcher
from retriever_server.corpus import Hit
from retriever_server.errors import BusyError, SearchFailedError, ShardError
from retriever_server.front import MAX_CHARS, NUM_FINDERS, START_S, merge_infos
from retriever_server.info import Info
from retriever_server.merging import MergedShards
from retriever_server.metrics import Metrics
from retriever_server.serve_arguments import read_arguments
from retriever_server.server import index_service
from retriever_server.service_settings import ServiceSettings
from retriever_server.settings import ServeSettings
from retriever_server.shard import Shard

# Beyond Serve's default of 5 at a time no batches would form.
_MAX_ONGOING = 1024
# Batches of a front in flight per replica: one that is encoded, one that is searched, one that waits.
_PER_REPLICA = 3
_PAUSE_S = 0.5


class ShardReplica:
    """One process that searches one shard."""

    async def __init__(self, settings: ServeSettings) -> None:  # type: ignore[misc]
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
        """What a replica says of itself. Raises ShardError if none is there in time."""
        return Info.model_validate(self._ask(lambda: self._handle.info.remote(), START_S))

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """As of `ShardSearch`."""
        lists: list[bytes] = self._ask(lambda: self._handle.search.remote(list(queries), topk), self._timeout_s)
        return [
            [Hit(orjson.dumps(hit["document"]), float(hit["score"])) for hit in orjson.loads(found)] for found in lists
        ]

    def _ask(self, call: Callable[[], Any], timeout_s: float) -> Any:
        end = time.monotonic() + timeout_s
        while True:
            try:
                return call().result(timeout_s=max(end - time.monotonic(), 0.001))
            except BusyError as error:
                raise ShardError(f"a shard is busy: {error}", "shard", error.retry_after_s) from error
            except SearchFailedError as error:
                raise SearchFailedError("a shard failed on one of the queries") from error
            # Ray tells of a dead replica in many ways. Searching again, at another one, changes nothing.
            except Exception as error:
                if time.monotonic() + _PAUSE_S > end:
                    raise ShardError(f"no replica of a shard answers ({type(error).__name__})", "shard") from error
                time.sleep(_PAUSE_S)


class Front:
    """The HTTP service; it batches, caches and merges."""

    async def __init__(  # type: ignore[misc]
        self, settings: ServiceSettings, num_finders: int, *handles: DeploymentHandle
    ) -> None:
        self._settings = settings
        self._metrics = Metrics()
        shards = [RayShard(handle, timeout_s=settings.deadline_s) for handle in handles]
        infos: list[Info] = []

        def load() -> MergedShards:
            infos.extend(shard.info() for shard in shards)
            return MergedShards(shards, num_threads=num_finders)

        self._batcher = Batcher(load, settings, self._metrics, max_chars=MAX_CHARS, num_finders=num_finders)
        await self._batcher.start()
        await self._batcher.wait_ready()
        self._info = merge_infos(infos, settings)

    def __serve_build_asgi_app__(self) -> Any:
        """Asked by Serve once the constructor is done."""
        return create_app(lambda: self._info, self._batcher, self._settings, self._metrics)


def build(args: dict[str, Any]) -> serve.Application:
    """The application for ``serve run`` or `ray.serve.run`.

    Args:
        args: As of `read_arguments`.

    Raises:
        SettingsError: An argument is not one of these, or is out of range.
        ValueError: Serve does not take the numbers of replicas or the times.
    """
    asked = read_arguments(args)
    scaling = AutoscalingConfig(**asked.scaling)
    common = {"max_ongoing_requests": _MAX_ONGOING, "logging_config": {"enable_access_log": False}}
    replica = serve.deployment(autoscaling_config=scaling, ray_actor_options=asked.resources, **common)(ShardReplica)
    shards = [
        replica.options(name=f"shard-{number}").bind(replace(asked.replica, shard=Shard(number, asked.num_shards)))
        for number in range(asked.num_shards)
    ]
    # Work for every replica, and more, or Serve would never see a reason to start another.
    num_finders = max(NUM_FINDERS, _PER_REPLICA * scaling.max_replicas)
    return serve.deployment(**common)(serve.ingress()(Front)).bind(asked.front, num_finders, *shards)
