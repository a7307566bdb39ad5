"""How much of what exact search finds an approximate index finds as well."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from retriever_server.corpus import Corpus
from retriever_server.index import Found
from retriever_server.manifest import Recall

_NUM_QUERIES = 200
_WORDS = 12

Search = Callable[[NDArray[np.float32], int], Found]


def make_queries(corpus: Corpus) -> list[str]:
    """Queries like those of the corpus's users, as far as it can tell: the first words after a title."""
    rows = np.unique(np.linspace(0, len(corpus) - 1, _NUM_QUERIES).astype(np.int64)).tolist()
    passages = [corpus.contents(row, row + 1)[0] for row in rows]
    return [" ".join(passage.partition("\n")[2].split()[:_WORDS]) or passage for passage in passages]


def measure(queries: NDArray[np.float32], exact: Search, approximate: Search) -> Recall:
    """Compare the two on the vectors of some queries."""
    deep = min(10, exact(queries[:1], 10).rows.shape[1])
    expected, found = exact(queries, deep).rows, approximate(queries, deep).rows
    return Recall(
        num_queries=len(queries),
        at_3=_overlap(expected, found, min(3, deep)),
        at_10=_overlap(expected, found, deep),
    )


def _overlap(expected: NDArray[np.int64], found: NDArray[np.int64], k: int) -> float:
    shared = [len(np.intersect1d(one[:k], other[:k])) for one, other in zip(expected, found, strict=True)]
    return round(float(np.mean(shared)) / k, 4)
