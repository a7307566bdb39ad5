"""The file of a FAISS flat index, as FAISS writes and reads it: a header, then the float32 rows.

The layout is that of ``write_index`` in FAISS (``impl/index_write.cpp``) for ``IndexFlatIP``: the four
characters ``IxFI``, dimension int32, count int64, two unused int64, a flag byte, the metric int32, and the
number of floats as uint64. It is read by memory map, so that opening 65 GB takes no time and no memory.
"""

import mmap
import struct
from io import BufferedReader
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from retriever_server.errors import IndexMismatchError

HEADER_BYTES = 45
_HEADER = struct.Struct("<4siqqqBiQ")
_FOURCC = b"IxFI"
_INNER_PRODUCT = 0
# What FAISS writes in two fields that it no longer reads.
_UNUSED = 1 << 20

assert _HEADER.size == HEADER_BYTES


def flat_header(count: int, dim: int) -> bytes:
    """The header of a flat inner-product index of ``count`` rows."""
    return _HEADER.pack(_FOURCC, dim, count, _UNUSED, _UNUSED, 1, _INNER_PRODUCT, count * dim)


def read_flat_header(path: Path) -> tuple[int, int]:
    """The (count, dimension) of a flat inner-product index.

    Raises:
        IndexMismatchError: The file is missing, of another type, or not as long as its header says.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
        size = path.stat().st_size
    except OSError as error:
        raise IndexMismatchError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    if len(head) < HEADER_BYTES or head[:4] != _FOURCC:
        raise IndexMismatchError(
            f"{path} is no FAISS IndexFlatIP (it begins with {head[:4]!r}); "
            "give a flat inner-product index, or build the index again."
        )
    _, dim, count, _, _, _, metric, num_floats = _HEADER.unpack(head)
    if metric != _INNER_PRODUCT or num_floats != count * dim:
        raise IndexMismatchError(f"{path} is no FAISS IndexFlatIP: its header contradicts itself; build it again.")
    if size != HEADER_BYTES + 4 * count * dim:
        raise IndexMismatchError(
            f"{path} has {size} bytes, {count} vectors of {dim} need {HEADER_BYTES + 4 * count * dim}: "
            "changed or cut short; build the index again with `retriever-server index --overwrite`."
        )
    return count, dim


class FlatFile:
    """The float32 rows of a flat index, memory-mapped or read into memory.

    Raises:
        IndexMismatchError: The file is no flat index, or not of ``count`` rows of ``dim``.
    """

    in_place = True
    """Whether a block is read where it lies."""

    def __init__(self, path: Path, *, count: int, dim: int, in_memory: bool = False) -> None:
        found = read_flat_header(path)
        if found != (count, dim):
            raise IndexMismatchError(
                f"{path} holds {found[0]} vectors of {found[1]}, its manifest says {count} of {dim}; "
                "build the index again with `retriever-server index --overwrite`."
            )
        self.count, self.dim = count, dim
        with path.open("rb") as file:
            self._map = None if in_memory else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            values = (
                _read(file, path, count * dim)
                if self._map is None
                else np.frombuffer(self._map, dtype=np.float32, offset=HEADER_BYTES)
            )
        self._vectors: NDArray[np.float32] = values.reshape(count, dim)

    def block(self, start: int, stop: int) -> torch.Tensor:
        """Rows ``start`` to ``stop`` as float32, not copied."""
        return torch.from_numpy(self._vectors[start:stop])

    def rows(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The given rows as float32, copied."""
        chosen: NDArray[np.float32] = self._vectors[rows]
        return chosen

    def release(self) -> None:
        """Give back the pages read so far; they are read again when they are needed."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)


def _read(file: BufferedReader, path: Path, num_floats: int) -> NDArray[np.float32]:
    # Filled in place: reading bytes first would need the memory twice. The header, which puts the floats of a mapped
    # file off the processor's alignment, is left out: a lone query's product takes three fifths of the time.
    values = np.empty(num_floats, dtype=np.float32)
    file.seek(HEADER_BYTES)
    if file.readinto(values.data) != values.nbytes:
        raise IndexMismatchError(f"{path} was cut short while it was read; build the index again.")
    return values
