"""The two stages of a search, which a service runs in two threads: one batch is encoded while another is searched."""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from retriever_server.corpus import Hit

Encoded = TypeVar("Encoded")


class Stages(Protocol, Generic[Encoded]):
    """A retrieval method. Each stage is called from one thread at a time, the two from different ones."""

    def encode(self, queries: Sequence[str]) -> Sequence[Encoded]:
        """Turn each query into what is searched with: a vector, terms."""
        ...

    def depth(self, topk: int) -> int:
        """How deep the search for ``topk`` passages of a query goes.

        Of the queries of one depth, searched together with the largest ``topk`` among them, each finds first what it
        would find alone. Across depths it may not: who looks at more may find better.
        """
        ...

    def find(self, encoded: Sequence[Encoded], topk: int) -> list[list[Hit]]:
        """Return the ``min(topk, count)`` best passages of each query, best first, each passage once."""
        ...
