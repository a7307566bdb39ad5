"""``retriever-server front``: one address for an index whose rows are served by several servers."""

import sys
import time

from retriever_server.errors import (
    IndexMismatchError,
    NotReadyError,
    SearchFailedError,
    ShardError,
    ShardTokenError,
)
from retriever_server.front_settings import FrontSettings
from retriever_server.http_shard import HttpShard
from retriever_server.info import Info, limits_of
from retriever_server.merging import MergedShards
from retriever_server.server import serve_service
from retriever_server.service import Service
from retriever_server.service_settings import ServiceSettings
from retriever_server.settings import IndexType
from retriever_server.shard import Shard

START_S = 300.0
"""How long a front waits for shards: those that are started together with it may still be loading."""

_PAUSE_S = 0.5
MAX_CHARS = 1 << 16
"""How much of a query goes to the shards, which cut it as their encoder needs."""

NUM_FINDERS = 4
"""Batches in flight at a time, so that the shards always have one waiting."""

_SAME = ("index_type", "metric", "dim", "corpus_sha256", "encoder")


def serve_front(settings: FrontSettings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in progress and return.

    Raises:
        AddressError: The address cannot be used.
        IndexMismatchError: The servers do not serve the parts of one index, in order.
        ShardError, SearchFailedError: A shard has no server that answers.
        ShardTokenError: A shard wants another token.
    """
    serve_service(front_service(settings), settings)


def front_service(settings: FrontSettings) -> Service:
    """Shards behind HTTP as one service."""
    shards = [HttpShard(urls, settings.shard_token, timeout_s=settings.deadline_s) for urls in settings.shards]
    found: list[Info] = []

    def load() -> MergedShards:
        infos = [_wait_for(shard, time.monotonic() + START_S) for shard in shards]
        found.append(merge_infos(infos, settings))
        check_batches(infos, settings)
        return MergedShards(shards, num_threads=NUM_FINDERS)

    def info() -> Info:
        if not found:
            raise NotReadyError("the shards are not all there yet", "loading")
        return found[0]

    return Service(load=load, info=info, max_chars=MAX_CHARS, num_finders=NUM_FINDERS)


def merge_infos(infos: list[Info], settings: ServiceSettings) -> Info:
    """What a front of these shards says.

    Raises:
        IndexMismatchError: They are not the parts of one index, in order, or give fewer passages than the front may.
    """
    if len(infos) > 1 and infos[0].index_type == IndexType.HYBRID.value:
        raise IndexMismatchError("an index of type hybrid cannot be merged: its scores are ranks; serve it whole.")
    for number, info in enumerate(infos):
        expected = str(Shard(number, len(infos)))
        if info.shard != expected:
            raise IndexMismatchError(
                f"server {number} of --shards serves part {info.shard}, not {expected}; give them in order of --shard."
            )
        for name in _SAME:
            if getattr(info, name) != getattr(infos[0], name):
                raise IndexMismatchError(f"the servers of --shards differ in {name}; serve one index.")
        if info.limits.topk < settings.max_topk:
            raise IndexMismatchError(
                f"server {number} of --shards gives {info.limits.topk} passages at most; "
                f"give the front --max-topk {info.limits.topk}, or the server {settings.max_topk}."
            )
    return infos[0].model_copy(
        update={"count": sum(info.count for info in infos), "shard": str(Shard()), "limits": limits_of(settings)}
    )


def check_batches(infos: list[Info], settings: ServiceSettings) -> None:
    """Check that each server takes the batches of its front. Raises IndexMismatchError."""
    for number, info in enumerate(infos):
        largest = min(info.limits.queries, info.limits.passages // settings.max_topk)
        if largest < settings.max_batch:
            raise IndexMismatchError(
                f"server {number} of --shards takes {largest} queries with topk {settings.max_topk} at most; give the "
                f"front --max-batch {largest}, or the server a larger --max-queue and --max-passages."
            )


def _wait_for(shard: HttpShard, end: float) -> Info:
    said = False
    while True:
        try:
            return Info.model_validate(shard.info())
        except ShardTokenError:
            # No waiting helps.
            raise
        except (ShardError, SearchFailedError) as error:
            if time.monotonic() > end:
                raise
            if not said:
                print(f"retriever-server: waiting, since {error}", file=sys.stderr, flush=True)
                said = True
            time.sleep(_PAUSE_S)
