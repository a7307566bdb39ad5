"""Exact scores of chosen rows, in an order that depends on nothing else."""

import numpy as np
from numpy.typing import NDArray

from retriever_server.index import Found
from retriever_server.index.shard import Vectors

# Bounds the memory for a query that thousands of rows tie for.
_ROWS = 16_384


def best_of(vectors: Vectors, queries: NDArray[np.float32], candidates: list[NDArray[np.int64]], k: int) -> Found:
    """The best ``k`` of each query's candidate rows, by inner product in double precision.

    A row's score does not depend on the other queries of the call, on the other candidates, nor on where
    the row lies, so equal passages score equal.
    """
    scores = np.empty((len(queries), k), dtype=np.float32)
    rows = np.empty((len(queries), k), dtype=np.int64)
    for number, (query, chosen) in enumerate(zip(queries, candidates, strict=True)):
        exact = _scores(vectors, query, chosen)
        best = np.lexsort((chosen, -exact))[:k]
        scores[number], rows[number] = exact[best], chosen[best]
    return Found(scores, rows)


def _scores(vectors: Vectors, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    wide = query.astype(np.float64)
    parts = [
        # einsum sums each row on its own, unlike a matrix product, whose rounding depends on its shape.
        np.einsum("rd,d->r", vectors.rows(rows[start : start + _ROWS]).astype(np.float64), wide)
        for start in range(0, len(rows), _ROWS)
    ]
    scores: NDArray[np.float32] = np.concatenate(parts).astype(np.float32)
    return scores
