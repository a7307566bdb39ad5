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

    def encode(self, queries: Sequence[str]) -> Any:
        """What `find` needs of the queries."""
        ...

    def find(self, encoded: Any, k: int) -> Found:
        """The best ``k`` rows of each query, ``k`` being no more than there are."""
        ...


class QueryEncoder(Protocol):
    """Gives vectors ``float32[n, dim]`` of queries."""

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of ``texts``."""
        ...


class VectorIndex(Protocol):
    """Searched by vector."""

    def search(self, queries: NDArray[np.float32], k: int) -> Found:
        """The best ``k`` rows of each of ``queries[n, dim]``."""
        ...


class WordIndex(Protocol):
    """Searched by word."""

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

    def encode(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Vectors ``float32[n, dim]``."""
        return self._encoder.encode_queries(queries)

    def find(self, encoded: NDArray[np.float32], k: int) -> Found:
        """The best ``k`` rows of each query, by inner product."""
        return self._index.search(encoded, k)


class ByWords:
    """BM25."""

    def __init__(self, index: WordIndex) -> None:
        self._index = index

    def encode(self, queries: Sequence[str]) -> list[list[int]]:
        """The numbers of each query's words."""
        return self._index.encode(queries)

    def find(self, encoded: list[list[int]], k: int) -> Found:
        """The best ``k`` rows of each query, by BM25."""
        return self._index.search(encoded, k)


class _EncodedBoth(NamedTuple):
    vectors: NDArray[np.float32]
    words: list[list[int]]


class ByBoth:
    """Vectors and words, joined by reciprocal rank fusion."""

    def __init__(self, vectors: ByVectors, words: ByWords) -> None:
        self._vectors = vectors
        self._words = words

    def encode(self, queries: Sequence[str]) -> _EncodedBoth:
        """What either needs."""
        return _EncodedBoth(self._vectors.encode(queries), self._words.encode(queries))

    def find(self, encoded: _EncodedBoth, k: int) -> Found:
        """The best ``k`` rows of each query; a score is at most 2 / 61."""
        depth = max(_FUSION_DEPTH, k)
        return fuse([self._vectors.find(encoded.vectors, depth), self._words.find(encoded.words, depth)], k)
