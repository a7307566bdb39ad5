"""Queries to passages: the method and the corpus of one index, checked to belong together."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import orjson

from retriever_server.corpus import Corpus, Hit
from retriever_server.encoder_spec import locate_encoder
from retriever_server.errors import IndexMismatchError, SettingsError
from retriever_server.layout import OFFSETS, PASSAGES
from retriever_server.manifest import Manifest
from retriever_server.methods import ByBoth, ByVectors, ByWords, Method
from retriever_server.precision import split_devices
from retriever_server.settings import IndexType, ServeSettings


class Scorer(Protocol):
    """A reranker."""

    def scores(self, query: str, passages: Sequence[str]) -> list[float]:
        """How well each passage answers ``query``."""
        ...


class EncodedQuery(NamedTuple):
    """A query as the first stage leaves it."""

    text: str
    encoded: Any
    """What the method made of it."""


class Engine:
    """A loaded index, in two stages: each may be used from one thread at a time, the two from different ones.

    Args:
        method: What finds rows.
        corpus: The passages.
        count: Rows that are searched.
        reranker: What orders passages anew; None leaves them as they were found.
        rerank_depth: How many it gets a query, at least.
    """

    def __init__(
        self, method: Method, corpus: Corpus, count: int, *, reranker: Scorer | None = None, rerank_depth: int = 20
    ) -> None:
        self._method = method
        self._corpus = corpus
        self._count = count
        self._reranker = reranker
        self._rerank_depth = rerank_depth

    @classmethod
    def load(cls, settings: ServeSettings, manifest: Manifest) -> "Engine":
        """Load an index whose files and encoder were checked, and encode one query to warm up.

        Raises:
            EncoderError: The encoder or the reranker cannot be loaded.
            IndexMismatchError: The number of vectors or passages is not what the manifest says.
            DeviceMemoryError: A GPU has too little memory for its part of the vectors.
            SettingsError: The index cannot be used as the settings say.
        """
        passages = settings.index / PASSAGES
        corpus = Corpus(passages, settings.index / OFFSETS)
        if len(corpus) != manifest.count:
            raise IndexMismatchError(
                f"{passages} holds {len(corpus)} passages, not {manifest.count}; "
                "build the index again with `retriever-server index --overwrite`."
            )
        rows = settings.shard.rows(manifest.count)
        if manifest.inputs.type is IndexType.HYBRID and len(rows) != manifest.count:
            raise SettingsError("--shard cannot split a hybrid index: its scores are ranks, which do not merge.")
        method = _load_method(settings, manifest, rows)
        reranker = None
        if settings.reranker is not None:
            from retriever_server.reranker import Reranker

            device = split_devices(settings.device)[0]
            reranker = Reranker(settings.reranker, device=device, dtype=settings.dtype)
        method.encode(["warm-up"])
        return cls(method, corpus, len(rows), reranker=reranker, rerank_depth=settings.rerank_depth)

    def encode(self, queries: Sequence[str]) -> list[EncodedQuery]:
        """The first stage."""
        return list(map(EncodedQuery, queries, self._method.encode(queries)))

    def depth(self, topk: int) -> int:
        """How many passages the reranker gets; without one it is the method's."""
        return self._method.depth(topk) if self._reranker is None else max(topk, self._rerank_depth)

    def find(self, encoded: Sequence[EncodedQuery], topk: int) -> list[list[Hit]]:
        """The ``min(topk, count)`` best passages of each query, best first, each passage once."""
        wanted = topk if self._reranker is None else self.depth(topk)
        scores, rows = self._method.find([query.encoded for query in encoded], min(wanted, self._count))
        found = [
            [Hit(self._corpus.raw(row), score) for row, score in zip(best, of_best, strict=True)]
            for best, of_best in zip(rows.tolist(), scores.tolist(), strict=True)
        ]
        if self._reranker is None:
            return found
        return [rerank(self._reranker, query.text, hits)[:topk] for query, hits in zip(encoded, found, strict=True)]

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """Both stages, one after the other."""
        return self.find(self.encode(queries), topk)


def rerank(reranker: Scorer, query: str, hits: Sequence[Hit]) -> list[Hit]:
    """``hits`` with the reranker's scores, best first; of equal scores the one found higher up."""
    scores = reranker.scores(query, [str(orjson.loads(hit.document)["contents"]) for hit in hits])
    scored = [Hit(hit.document, score) for hit, score in zip(hits, scores, strict=True)]
    return sorted(scored, key=lambda hit: -hit.score)


def _load_method(settings: ServeSettings, manifest: Manifest, rows: range) -> Method:
    words = None
    if manifest.inputs.type.has_words:
        from retriever_server.index.bm25 import Bm25Index

        index = Bm25Index(settings.index, count=manifest.count, rows=rows, in_memory=settings.in_memory)
        words = ByWords(index)
    spec = manifest.inputs.encoder
    if spec is None:
        assert words is not None
        return words
    # By words alone a search needs no torch, and starts in a second.
    from retriever_server.encoder import Encoder
    from retriever_server.opening import open_vectors

    devices = split_devices(settings.device)
    directory = locate_encoder(settings.encoder or spec.name)
    encoder = Encoder(directory, spec, device=devices[0], threads=settings.threads, dtype=settings.dtype)
    vectors = open_vectors(
        settings.index,
        manifest.inputs,
        count=manifest.count,
        max_norm=manifest.max_norm,
        residual=manifest.residual,
        rows=rows,
        devices=devices,
        dtype=settings.dtype,
        in_memory=settings.in_memory,
    )
    return ByVectors(encoder, vectors) if words is None else ByBoth(ByVectors(encoder, vectors), words)
