"""Several shards searched as one index."""

import heapq
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from retriever_server.corpus import Hit


class ShardSearch(Protocol):
    """A shard, wherever it is. Safe to use from several threads."""

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """The shard's ``topk`` best passages of each query, best first, equal scores by row.

        Raises:
            ShardError: No replica of the shard can be asked.
            SearchFailedError: The shard failed on one of the queries.
        """
        ...


class MergedShards:
    """A retrieval method over shards that hold the rows of one index in order.

    The best of an index are among the bests of its parts, so the merge is exact. Equal scores go to the lower row,
    as in one index: within a shard they are in that order, and the shards are asked in that order.
    """

    def __init__(self, shards: Sequence[ShardSearch], *, num_threads: int) -> None:
        self._shards = shards
        self._threads = ThreadPoolExecutor(max_workers=num_threads * len(shards), thread_name_prefix="shard")

    def encode(self, queries: Sequence[str]) -> list[str]:
        """Nothing to do: the shards encode."""
        return list(queries)

    def depth(self, topk: int) -> int:
        """What the shards are asked for; how deep they go for it is theirs to know."""
        return topk

    def find(self, encoded: Sequence[str], topk: int) -> list[list[Hit]]:
        """The ``topk`` best passages of each query over all shards.

        Raises:
            ShardError, SearchFailedError: Not all of them answer.
        """
        parts = list(self._threads.map(lambda shard: shard.search(encoded, topk), self._shards))
        return [merge_hits(lists, topk) for lists in zip(*parts, strict=True)]


def merge_hits(lists: Sequence[Sequence[Hit]], topk: int) -> list[Hit]:
    """The best of lists that are sorted by score, best first; of equal scores the earlier list's come first."""
    merged = heapq.merge(*lists, key=lambda hit: -hit.score)
    return [hit for hit, _ in zip(merged, range(topk), strict=False)]
