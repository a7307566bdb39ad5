"""Exact search by inner product, over one device or several.

torch searches what FAISS stores. Since FAISS 1.14.2 a flat search of fewer than about 128,000 / dim queries,
just what a micro-batching server asks for, scores the queries one by one and costs ten times as much as a
matrix product. The switch for that changed its unit between versions, so no value suits all of them.

Every precision gives the same answer: the product, in whatever precision, only has to find the rows that
its error bound cannot rule out; those are scored again from the vectors themselves.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from retriever_server.index import Found
from retriever_server.index.candidates import Candidates, merge
from retriever_server.index.rescore import best_of
from retriever_server.index.shard import Vectors

# Queries multiplied at a time: bounds the score matrix.
_MAX_QUERIES = 256


class Shard(Protocol):
    """Some of the rows, on one device."""

    def candidates(self, queries: torch.Tensor, k: int) -> Candidates:
        """The rows that may be among the best ``k`` of each query."""
        ...


class FlatIndex:
    """All rows, searched exactly.

    Args:
        vectors: What the rows are scored by in the end.
        shards: Where candidates are looked for, no row in two of them.
        count: How many rows the shards have together.
    """

    def __init__(self, vectors: Vectors, shards: list[Shard], count: int) -> None:
        self._vectors = vectors
        self._count = count
        self._shards = shards
        self._workers = ThreadPoolExecutor(max_workers=len(shards), thread_name_prefix="shard")

    def __len__(self) -> int:
        return self._count

    def depth(self, k: int) -> int:
        """Every row counts, whatever is wanted."""
        return len(self)

    def search(self, queries: NDArray[np.float32], k: int) -> Found:
        """The ``min(k, count)`` best rows of each of ``queries[n, dim]``."""
        k = min(k, len(self))
        parts = [
            best_of(self._vectors, part, self._candidates(torch.from_numpy(part), k), k)
            for part in (queries[start : start + _MAX_QUERIES] for start in range(0, len(queries), _MAX_QUERIES))
        ]
        if not parts:
            return Found(np.empty((0, k), dtype=np.float32), np.empty((0, k), dtype=np.int64))
        return Found(np.concatenate([part.scores for part in parts]), np.concatenate([part.rows for part in parts]))

    def _candidates(self, queries: torch.Tensor, k: int) -> list[NDArray[np.int64]]:
        found = merge(list(self._workers.map(lambda shard: shard.candidates(queries, k), self._shards)), k)
        query, by_query = found.query.cpu().sort(stable=True)
        sizes: list[int] = query.bincount(minlength=len(queries)).tolist()
        return [part.numpy() for part in found.row.cpu()[by_query].split_with_sizes(sizes)]
