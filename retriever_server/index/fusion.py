"""Two rankings into one."""

from collections.abc import Sequence

import numpy as np

from retriever_server.index import Found

RRF_K = 60
"""Of Cormack, Clarke and Buettcher, Reciprocal Rank Fusion (SIGIR 2009)."""


def fuse(rankings: Sequence[Found], k: int) -> Found:
    """Reciprocal rank fusion: a row scores the sum of 1 / (60 + rank) over ``rankings``, ranks from 1.

    Gives ``k`` rows a query; every ranking must hold at least as many.
    """
    num_queries = len(rankings[0].rows)
    scores = np.empty((num_queries, k), dtype=np.float32)
    rows = np.empty((num_queries, k), dtype=np.int64)
    for query in range(num_queries):
        found, member = np.unique(np.concatenate([ranking.rows[query] for ranking in rankings]), return_inverse=True)
        parts = [1.0 / (RRF_K + 1 + np.arange(ranking.rows.shape[1])) for ranking in rankings]
        total = np.bincount(member, weights=np.concatenate(parts))
        best = np.lexsort((found, -total))[:k]
        scores[query], rows[query] = total[best], found[best]
    return Found(scores, rows)
