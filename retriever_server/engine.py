"""Queries to passages: the encoder, the vectors and the corpus of one index, checked to belong together."""

from collections.abc import Sequence

from retriever_server.corpus import Corpus, Hit
from retriever_server.encoder import Encoder
from retriever_server.encoder_spec import locate_encoder
from retriever_server.errors import IndexMismatchError
from retriever_server.index import FlatIndex
from retriever_server.manifest import OFFSETS, PASSAGES, VECTORS, Manifest
from retriever_server.settings import ServeSettings


class Engine:
    """A loaded index. Use it from one thread at a time."""

    def __init__(self, encoder: Encoder, index: FlatIndex, corpus: Corpus) -> None:
        self._encoder = encoder
        self._index = index
        self._corpus = corpus

    @classmethod
    def load(cls, settings: ServeSettings, manifest: Manifest) -> "Engine":
        """Load an index whose files and encoder were checked, and answer one query to warm up.

        Raises:
            EncoderError: The encoder cannot be loaded.
            IndexMismatchError: The number of vectors or passages is not what the manifest says.
        """
        spec = manifest.inputs.encoder
        directory = locate_encoder(settings.encoder or spec.name)
        encoder = Encoder(directory, spec, device=settings.device, threads=settings.threads)
        index = FlatIndex.read(settings.index / VECTORS, count=manifest.count, dim=spec.dim)
        corpus = Corpus(settings.index / PASSAGES, settings.index / OFFSETS)
        if len(corpus) != manifest.count:
            raise IndexMismatchError(
                f"{settings.index / PASSAGES} holds {len(corpus)} passages, not {manifest.count}; "
                "build the index again with `retriever-server index --overwrite`."
            )
        engine = cls(encoder, index, corpus)
        engine.search(["warm-up"], 1)
        return engine

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """The ``min(topk, count)`` best passages of each query, best first, each passage once."""
        # The rollouts of one group often ask the same question; it is encoded once.
        unique = {query: position for position, query in enumerate(dict.fromkeys(queries))}
        scores, rows = self._index.search(self._encoder.encode_queries(list(unique)), topk)
        found = [
            [Hit(self._corpus.raw(row), score) for row, score in zip(best, of_best, strict=True)]
            for best, of_best in zip(rows.tolist(), scores.tolist(), strict=True)
        ]
        return [found[unique[query]] for query in queries]
