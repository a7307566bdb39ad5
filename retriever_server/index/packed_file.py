"""Vectors in fewer bits: half precision, or one byte a number.

A packed file is a plain ``.npy`` array of float16 or uint8, read by memory map. Bytes are spread evenly
between the smallest and the largest value of each dimension, both kept in a small file beside.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from retriever_server.errors import IndexMismatchError
from retriever_server.files import atomic_write
from retriever_server.index.flat_file import FlatFile
from retriever_server.index.shard import Vectors

_LEVELS = 255
_ROWS = 16_384


class PackedFile:
    """Rows of float16 or of bytes, given out as float32.

    Args:
        path: The ``.npy`` array.
        scale: The ``.npy`` array ``float32[2, dim]`` of lowest values and steps; None for float16.
        in_memory: Read the file instead of mapping it.

    Raises:
        IndexMismatchError: A file is unreadable or not of ``count`` rows of ``dim``.
    """

    in_place = False
    """Whether a block is read where it lies; here it is made anew each time."""

    def __init__(self, path: Path, scale: Path | None, *, count: int, dim: int, in_memory: bool = False) -> None:
        self.count, self.dim = count, dim
        self._packed = _load(path, (count, dim), np.float16 if scale is None else np.uint8, in_memory)
        self._scale = None if scale is None else np.array(_load(scale, (2, dim), np.float32, True))

    def block(self, start: int, stop: int) -> torch.Tensor:
        """Rows ``start`` to ``stop`` as float32."""
        return torch.from_numpy(self._unpack(self._packed[start:stop]))

    def rows(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The given rows as float32."""
        return self._unpack(self._packed[rows])

    def release(self) -> None:
        """Give back the pages read so far; they are read again when they are needed."""
        base = getattr(self._packed, "_mmap", None)
        if base is not None:
            base.madvise(mmap.MADV_DONTNEED)

    def _unpack(self, packed: NDArray[Any]) -> NDArray[np.float32]:
        if self._scale is None:
            # Not NumPy: torch's conversion uses the processor's instruction for it.
            halves = torch.from_numpy(packed)
            result: NDArray[np.float32] = halves.float().numpy()
            return result
        low, step = self._scale
        values = packed.astype(np.float32)
        values *= step
        values += low
        return values


def write_halves(vectors: FlatFile, path: Path) -> float:
    """Write ``vectors`` as float16, block by block; returns the residual."""
    residual = 0.0
    with atomic_write(path) as file:
        _write_head(file, np.float16, (vectors.count, vectors.dim))
        for block in _blocks(vectors):
            halves = block.astype(np.float16)
            file.write(halves.tobytes())
            residual = max(residual, _longest(block - halves.astype(np.float32)))
    return residual


def write_bytes(vectors: FlatFile, path: Path, scale: Path) -> float:
    """Write ``vectors`` as bytes and their scale, block by block; returns the residual."""
    low = np.full(vectors.dim, np.inf, dtype=np.float32)
    high = -low
    for block in _blocks(vectors):
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
    # A dimension that never changes would have a step of zero.
    step = np.maximum((high - low) / _LEVELS, np.finfo(np.float32).tiny)
    with atomic_write(scale) as file:
        np.save(file, np.stack([low, step]))
    residual = 0.0
    with atomic_write(path) as file:
        _write_head(file, np.uint8, (vectors.count, vectors.dim))
        for block in _blocks(vectors):
            levels = np.clip(np.rint((block - low) / step), 0, _LEVELS).astype(np.uint8)
            file.write(levels.tobytes())
            residual = max(residual, _longest(block - (levels.astype(np.float32) * step + low)))
    return residual


def longest_vector(vectors: Vectors) -> float:
    """The largest length of a row, in one pass over the file."""
    longest = max(_longest(vectors.block(start, start + _ROWS).numpy()) for start in range(0, vectors.count, _ROWS))
    vectors.release()
    return longest


def _blocks(vectors: FlatFile) -> Iterator[NDArray[np.float32]]:
    for start in range(0, vectors.count, _ROWS):
        yield vectors.block(start, start + _ROWS).numpy()
        vectors.release()


def _longest(rows: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.einsum("rd,rd->r", rows, rows, dtype=np.float64).max()))


def _write_head(file: BinaryIO, dtype: type, shape: tuple[int, int]) -> None:
    write_header: Any = np.lib.format.write_array_header_1_0
    head = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    write_header(file, head)


def _load(path: Path, shape: tuple[int, int], dtype: type, in_memory: bool) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode=None if in_memory else "c")
    except (OSError, ValueError) as error:
        raise IndexMismatchError(f"{path} cannot be read ({error}); build the index again.") from error
    if array.shape != shape or array.dtype != dtype:
        raise IndexMismatchError(
            f"{path} holds {array.dtype}{list(array.shape)}, its manifest needs {np.dtype(dtype)}{list(shape)}; "
            "build the index again with `retriever-server index --overwrite`."
        )
    return array
