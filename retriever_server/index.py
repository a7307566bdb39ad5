"""Exact search over the vectors of a FAISS flat index.

FAISS stores and reads the index; torch searches it. Since FAISS 1.14.2 a flat search of fewer than about
128,000 / dim queries, just what a micro-batching server asks for, scores the queries one by one and costs
ten times as much as a matrix product. The switch for that changed its unit between versions, so no value
suits all of them. FAISS also leaves the order of equal scores open. FAISS computes nothing here, so its
threads need no setting.
"""

from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from retriever_server.errors import IndexMismatchError

# Rows scored at a time: bounds the score matrix to 64 MB for 256 queries.
_BLOCK_ROWS = 65_536


class FlatIndex:
    """Vectors ``float32[count, dim]``, searched exactly by inner product."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        assert vectors.ndim == 2
        assert vectors.dtype == np.float32
        self._vectors = vectors
        starts = range(0, len(vectors), _BLOCK_ROWS)
        self._blocks = [torch.from_numpy(vectors[start : start + _BLOCK_ROWS]) for start in starts]
        self._max_norm = max(float(torch.linalg.vector_norm(block, dim=1).max()) for block in self._blocks)
        self._owner: object = None

    @classmethod
    def read(cls, path: Path, *, count: int, dim: int) -> "FlatIndex":
        """Read a FAISS index file and check its size.

        Raises:
            IndexMismatchError: It is unreadable, of another type, or not of ``count`` vectors of ``dim``.
        """
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise IndexMismatchError(f"{path} cannot be read by faiss; build the index again.") from error
        if not isinstance(index, faiss.IndexFlatIP):
            raise IndexMismatchError(f"{path} is a {type(index).__name__}, this server needs an IndexFlatIP.")
        if (index.ntotal, index.d) != (count, dim):
            raise IndexMismatchError(
                f"{path} holds {index.ntotal} vectors of {index.d}, its manifest says {count} of {dim}; "
                "build the index again with `retriever-server index --overwrite`."
            )
        # A view of FAISS's own memory, not a second copy; it is valid while the FAISS index lives.
        flat = cls(faiss.rev_swig_ptr(index.get_xb(), count * dim).reshape(count, dim))
        flat._owner = index
        return flat

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The ``min(k, count)`` best rows of each of ``queries[n, dim]``: scores and rows, both ``[n, k]``.

        Scores fall; rows of equal score rise. A row's score does not depend on the other queries of the
        call nor on where the row lies, so equal passages score equal.
        """
        k = min(k, len(self))
        scores = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        for query, candidates in enumerate(self._candidates(torch.from_numpy(queries), k)):
            # einsum sums each row on its own and in double precision, unlike a matrix product, whose
            # rounding depends on its shape.
            exact = np.einsum(
                "rd,d->r", self._vectors[candidates].astype(np.float64), queries[query].astype(np.float64)
            ).astype(np.float32)
            best = np.lexsort((candidates, -exact))[:k]
            scores[query], rows[query] = exact[best], candidates[best]
        return scores, rows

    def _candidates(self, queries: torch.Tensor, k: int) -> list[NDArray[np.int64]]:
        """For each query the rows that rounding could not keep out of the best ``k``."""
        slack = self._rounding(queries)
        best = torch.full((len(queries), 0), -torch.inf)
        kept: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        start = 0
        for block in self._blocks:
            scores = queries @ block.T
            best = torch.cat([best, scores.topk(min(k, len(block))).values], dim=1)
            best = best.topk(min(k, best.shape[1])).values
            query, row = torch.nonzero(scores >= best[:, -1:] - slack, as_tuple=True)
            kept.append((query, row + start, scores[query, row]))
            start += len(block)
        query, row, score = (torch.cat(parts) for parts in zip(*kept, strict=True))
        still = score >= (best[:, -1:] - slack)[query, 0]
        query, by_query = query[still].sort(stable=True)
        sizes: list[int] = query.bincount(minlength=len(queries)).tolist()
        return [part.numpy() for part in row[still][by_query].split_with_sizes(sizes)]

    def _rounding(self, queries: torch.Tensor) -> torch.Tensor:
        """Twice the most that a float32 product of these lengths can be off, ``[n, 1]``."""
        per_length = 2 * queries.shape[1] * torch.finfo(torch.float32).eps * self._max_norm
        lengths: torch.Tensor = torch.linalg.vector_norm(queries, dim=1, keepdim=True)
        return lengths * per_length
