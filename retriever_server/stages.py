"""The two stages of a search, which a service runs in two threads: one batch is encoded while another is searched."""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from retriever_server.corpus import Hit

Encoded = TypeVar("Encoded")


class Stages(Protocol, Generic[Encoded]):
    """A retrieval method. Each stage is called from one thread at a time, the two from different ones."""

    def encode(self, queries: Sequence[str]) -> Encoded:
        """Turn queries into what is searched with: vectors, terms."""
        ...

    def find(self, encoded: Encoded, topk: int) -> list[list[Hit]]:
        """Return the ``min(topk, count)`` best passages of each query, best first, each passage once."""
        ...
