"""Approximate search by FAISS: IVF-PQ and HNSW, refined with the vectors themselves where they were kept.

FAISS finds more rows than are wanted, the exact scores decide among them. What the index was built with
(lists visited, length of the search) is in its file.
"""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from retriever_server.errors import IndexMismatchError, SettingsError
from retriever_server.index import Found
from retriever_server.index.flat_file import FlatFile
from retriever_server.index.rescore import best_of

_MIN_DEPTH, _DEPTH_PER_ROW = 64, 4
_ADD_ROWS = 65_536
# FAISS cannot learn 256 codes from fewer vectors.
_MIN_ROWS = 256
_ROWS_PER_LIST, _MAX_TRAIN_PER_LIST = 64, 128
_MIN_TRAIN = 65_536
_DIMS_PER_CODE = 4
_HNSW_LINKS, _HNSW_BUILD, _HNSW_SEARCH = 32, 200, 256


class ApproximateIndex:
    """A FAISS index and, where they were kept, the vectors.

    Raises:
        IndexMismatchError: The file is unreadable or not of ``count`` rows of ``dim``.
    """

    def __init__(self, path: Path, *, count: int, dim: int, refine: FlatFile | None, in_memory: bool = False) -> None:
        try:
            self._index = faiss.read_index(str(path), 0 if in_memory else faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise IndexMismatchError(f"{path} cannot be read by faiss; build the index again.") from error
        if (self._index.ntotal, self._index.d) != (count, dim):
            raise IndexMismatchError(
                f"{path} holds {self._index.ntotal} vectors of {self._index.d}, its manifest says {count} of {dim}; "
                "build the index again with `retriever-server index --overwrite`."
            )
        self._refine = refine
        # One query a time in every part, whose rounding then does not depend on how many come together.
        faiss.cvar.distance_compute_blas_threshold = np.iinfo(np.int32).max

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def depth(self, k: int) -> int:
        """How many rows FAISS is asked for."""
        return k if self._refine is None else max(_MIN_DEPTH, _DEPTH_PER_ROW * k)

    def search(self, queries: NDArray[np.float32], k: int) -> Found:
        """About the ``min(k, count)`` best rows of each of ``queries[n, dim]``; always that many."""
        k = min(k, len(self))
        depth = self.depth(k)
        # FAISS counts its threads for each thread that calls it, and by itself takes every core.
        _set_threads(torch.get_num_threads())
        scores, rows = self._index.search(np.ascontiguousarray(queries), min(depth, len(self)))
        if self._refine is not None:
            # The candidates depend on the depth alone, not on k.
            wanted = min(depth // _DEPTH_PER_ROW, len(self))
            return best_of(self._refine, queries, [_enough(found, wanted) for found in rows], k)
        for found, of_found in zip(rows, scores, strict=True):
            missing = found < 0
            found[:] = _enough(found, k)
            # Below every real score, and still a number that JSON has.
            of_found[missing] = np.min(of_found[~missing], initial=0.0)
        order = np.lexsort((rows, -scores), axis=1)
        return Found(np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1).astype(np.int64))


def _enough(found: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The rows FAISS found, it marks the missing ones by -1, filled up to ``k`` with the first others."""
    real = found[found >= 0]
    if len(real) >= k:
        return real
    others = np.setdiff1d(np.arange(len(real) + k, dtype=np.int64), real)
    return np.concatenate([real, others[: k - len(real)]])


def build_ivf_pq(vectors: FlatFile, path: Path, *, threads: int | None) -> None:
    """Train IVF-PQ on a sample of ``vectors``, add them block by block, write the file.

    Raises:
        SettingsError: There are too few vectors to train on.
    """
    if vectors.count < _MIN_ROWS:
        raise SettingsError(f"--type ivf_pq needs {_MIN_ROWS} passages, there are {vectors.count}; use --type flat.")
    _set_threads(threads)
    num_lists = max(1, min(int(4 * vectors.count**0.5), vectors.count // _ROWS_PER_LIST))
    num_codes = max(divisor for divisor in range(1, vectors.dim // _DIMS_PER_CODE + 1) if vectors.dim % divisor == 0)
    index = faiss.IndexIVFPQ(
        faiss.IndexFlatIP(vectors.dim), vectors.dim, num_lists, num_codes, 8, faiss.METRIC_INNER_PRODUCT
    )
    index.nprobe = max(8, num_lists // 8)
    for clustering in (index.cp, index.pq.cp):
        # FAISS would warn on stdout of a small corpus; the recall that is measured says more.
        clustering.min_points_per_centroid = 1
    index.train(_sample(vectors, max(_MIN_TRAIN, num_lists * _MAX_TRAIN_PER_LIST)))
    _add(index, vectors)
    faiss.write_index(index, str(path))


def build_hnsw(vectors: FlatFile, path: Path, *, threads: int | None) -> None:
    """Build an HNSW graph over 8-bit vectors, whose ranges come from a sample, and write the file."""
    _set_threads(threads)
    # Its annotations name the arguments of another overload.
    make: Any = faiss.IndexHNSWSQ
    index = make(vectors.dim, faiss.ScalarQuantizer.QT_8bit, _HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = _HNSW_BUILD, _HNSW_SEARCH
    index.train(_sample(vectors, _ADD_ROWS))
    _add(index, vectors)
    faiss.write_index(index, str(path))


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        faiss.omp_set_num_threads(threads)


def _sample(vectors: FlatFile, num_rows: int) -> NDArray[np.float32]:
    return vectors.rows(np.linspace(0, vectors.count - 1, min(num_rows, vectors.count)).astype(np.int64))


def _add(index: Any, vectors: FlatFile) -> None:
    for start in range(0, vectors.count, _ADD_ROWS):
        index.add(vectors.block(start, start + _ADD_ROWS).numpy())
        vectors.release()
