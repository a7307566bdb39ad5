"""A range of rows on one device: computes scores, and says by how much they may be off.

The bound, for stored rows x' and queries q' rounded to the product's precision of unit roundoff u: with
``r`` the longest ``|x - x'|``, which is measured, and ``s = |q - q'|``,

    |q.x - computed| <= |q| r  +  s |x'|  +  d eps32 |q'| |x'|  +  u |q'| |x'|

that is: what packing lost, what rounding the query lost (both Cauchy-Schwarz), the float32 sum of ``d``
products (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), and the rounding of the result.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from retriever_server.index.candidates import Candidates, scan

# Rows scored at a time: bounds the score matrix to 64 MB for 256 queries.
BLOCK_ROWS = 65_536
# Rows that each thread of a CPU multiplies at a time: they stay in its cache. That took a quarter off a product of 256
# queries in float32, an eighth off one of 32.
_CACHED_ROWS = 1024
# Packed rows that are unpacked at a time: of bytes by one thread, however many multiply them.
_UNPACK_ROWS = 2048
_CENTRE_ROWS = 1024
# Scores a GPU computes at a time, 512 MB of them in half precision: each step costs it the same small delay, whatever
# its size.
GPU_SCORES = 2**28
# Rows copied to a device at a time: all that is in host memory of them.
_LOAD_ROWS = 8192


class Vectors(Protocol):
    """A file of vectors."""

    count: int
    dim: int
    in_place: bool

    def block(self, start: int, stop: int) -> torch.Tensor:
        """Rows ``start`` to ``stop`` as float32; fewer if the file ends."""
        ...

    def rows(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The given rows as float32."""
        ...

    def release(self) -> None:
        """Give back the pages read so far."""
        ...


class MappedShard:
    """Rows of a file, multiplied in float32 by the CPU where they lie; holds nothing in memory.

    Args:
        vectors: The file.
        max_norm: The largest length of a row.
        residual: By how much a row of the file may differ from the vector that decides.
    """

    def __init__(self, vectors: Vectors, start: int, stop: int, *, max_norm: float, residual: float) -> None:
        self._vectors, self._start, self._stop = vectors, start, stop
        self._max_norm, self._residual = max_norm, residual

    def candidates(self, queries: torch.Tensor, k: int) -> Candidates:
        """The rows that may be among the best ``k`` of each of ``queries[n, dim]``."""
        error = _error(queries, queries, max_norm=self._max_norm, residual=self._residual)
        return scan(self._scores(queries), 2 * error, k)

    def _scores(self, queries: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        step = _CACHED_ROWS * torch.get_num_threads() if self._vectors.in_place else _UNPACK_ROWS
        for first in range(self._start, self._stop, BLOCK_ROWS):
            stop = min(first + BLOCK_ROWS, self._stop)
            scores = torch.empty(len(queries), stop - first)
            for start in range(first, stop, step):
                block = self._vectors.block(start, min(start + step, stop))
                torch.mm(queries, block.T, out=scores[:, start - first : start - first + len(block)])
            yield first, scores


class ResidentShard:
    """Rows copied to a device in a lower precision, block by block from the file.

    A vector common to all rows is subtracted first. That moves all scores of a query alike, and where
    vectors lie close together, as e5's do, it leaves shorter ones, which lose less by rounding.

    Args:
        vectors: The file.
        device: Where to.
        dtype: float16 or bfloat16 (or float32).
        centre: ``float32[dim]``, what is subtracted; the same for all shards of an index.
        residual: As of `MappedShard`.
    """

    def __init__(
        self,
        vectors: Vectors,
        start: int,
        stop: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        centre: torch.Tensor,
        residual: float,
    ) -> None:
        self._first = start
        self._rows = torch.empty((stop - start, vectors.dim), dtype=dtype, device=device)
        centre = centre.to(device)
        rounding, norm = 0.0, 0.0
        for first in range(start, stop, _LOAD_ROWS):
            block = vectors.block(first, min(first + _LOAD_ROWS, stop)).to(device) - centre
            copy = self._rows[first - start : first - start + len(block)]
            copy.copy_(block)
            rounding = max(rounding, float(torch.linalg.vector_norm(block - copy, dim=1).max()))
            norm = max(norm, float(torch.linalg.vector_norm(block, dim=1).max()))
            vectors.release()
        self._max_norm, self._residual = norm, residual + rounding

    def candidates(self, queries: torch.Tensor, k: int) -> Candidates:
        """The rows that may be among the best ``k`` of each of ``queries[n, dim]``."""
        queries = queries.to(self._rows.device)
        rounded = queries.to(self._rows.dtype)
        error = _error(queries, rounded, max_norm=self._max_norm, residual=self._residual)
        return scan(self._scores(rounded), 2 * error, k)

    def _scores(self, queries: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        on_cpu = self._rows.device.type == "cpu"
        step = BLOCK_ROWS if on_cpu else max(BLOCK_ROWS, GPU_SCORES // len(queries))
        for start in range(0, len(self._rows), step):
            yield self._first + start, queries @ self._rows[start : start + step].T


def _error(queries: torch.Tensor, rounded: torch.Tensor, *, max_norm: float, residual: float) -> torch.Tensor:
    """The most by which a computed score can be off, ``float32[n, 1]``."""
    precision = torch.finfo(rounded.dtype)
    length, lost = (torch.linalg.vector_norm(q, dim=1, keepdim=True) for q in (queries, queries - rounded.float()))
    stored = max_norm + residual
    sums = queries.shape[1] * torch.finfo(torch.float32).eps + precision.eps / 2
    # ``tiny`` covers results too small for the precision; twice the sums cover the norms' own rounding.
    result: torch.Tensor = length * residual + lost * stored + 2 * sums * (length + lost) * stored + precision.tiny
    return result


def centre_of(vectors: Vectors) -> torch.Tensor:
    """The mean of evenly spaced rows, ``float32[dim]``: near the mean of all, and cheap."""
    rows = np.linspace(0, vectors.count - 1, min(vectors.count, _CENTRE_ROWS)).astype(np.int64)
    return torch.from_numpy(vectors.rows(rows)).mean(dim=0)


def keep_sums_exact() -> None:
    """Keep GPU products to float32 sums: the bound counts on it, and PyTorch allows less by default."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
