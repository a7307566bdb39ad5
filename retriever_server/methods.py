"""What encodes queries and finds rows: by vectors, by words, or both."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from retriever_server.index import Found
from retriever_server.index.fusion import fuse

# A passage that one ranking has beyond this depth gets next to nothing from it.
_FUSION_DEPTH = 100


class Method(Protocol):
    """The two stages of a search, each used from one thread at a time."""

    def encode(self, queries: Sequence[str]) -> Sequence[Any]:
        """What `find` needs of each query."""
        ...

    def depth(self, k: int) -> int:
        """As of `Stages`."""
        ...

    def find(self, encoded: Sequence[Any], k: int) -> Found:
        """The best ``k`` rows of each query, ``k`` being no more than there are."""
        ...


class QueryEncoder(Protocol):
    """Gives vectors ``float32[n, dim]`` of queries."""

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of ``texts``."""
        ...


class VectorIndex(Protocol):
    """Searched by vector."""

    def depth(self, k: int) -> int:
        """As of `Stages`."""
        ...

    def search(self, queries: NDArray[np.float32], k: int) -> Found:
        """The best ``k`` rows of each of ``queries[n, dim]``."""
        ...


class WordIndex(Protocol):
    """Searched by word."""

    def depth(self, k: int) -> int:
        """As of `Stages`."""
        ...

    def encode(self, queries: Sequence[str]) -> list[list[int]]:
        """The numbers of each query's words."""
        ...

    def search(self, queries: Sequence[list[int]], k: int) -> Found:
        """The best ``k`` rows of each query."""
        ...


class ByVectors:
    """An encoder and an index of vectors."""

    def __init__(self, encoder: QueryEncoder, index: VectorIndex) -> None:
        self._encoder = encoder
        self._index = index

    def encode(self, queries: Sequence[str]) -> list[NDArray[np.float32]]:
        """A vector ``float32[dim]`` a query."""
        return list(self._encoder.encode_queries(queries))

    def depth(self, k: int) -> int:
        """The index's."""
        return self._index.depth(k)

    def find(self, encoded: Sequence[NDArray[np.float32]], k: int) -> Found:
        """The best ``k`` rows of each query, by inner product."""
        return self._index.search(np.stack(encoded), k)


class ByWords:
    """BM25."""

    def __init__(self, index: WordIndex) -> None:
        self._index = index

    def encode(self, queries: Sequence[str]) -> list[list[int]]:
        """The numbers of each query's words."""
        return self._index.encode(queries)

    def depth(self, k: int) -> int:
        """The index's."""
        return self._index.depth(k)

    def find(self, encoded: Sequence[list[int]], k: int) -> Found:
        """The best ``k`` rows of each query, by BM25."""
        return self._index.search(encoded, k)


class _EncodedBoth(NamedTuple):
    vector: NDArray[np.float32]
    words: list[int]


class ByBoth:
    """Vectors and words, joined by reciprocal rank fusion."""

    def __init__(self, vectors: ByVectors, words: ByWords) -> None:
        self._vectors = vectors
        self._words = words

    def encode(self, queries: Sequence[str]) -> list[_EncodedBoth]:
        """What either needs."""
        return list(map(_EncodedBoth, self._vectors.encode(queries), self._words.encode(queries)))

    def depth(self, k: int) -> int:
        """How much of either ranking is fused."""
        return max(_FUSION_DEPTH, k)

    def find(self, encoded: Sequence[_EncodedBoth], k: int) -> Found:
        """The best ``k`` rows of each query; a score is at most 2 / 61."""
        depth = self.depth(k)
        vectors, words = zip(*encoded, strict=True)
        return fuse([self._vectors.find(vectors, depth), self._words.find(words, depth)], k)
