"""Which shards of the vectors are encoded and on disk: one line each, in a file only the parent writes.

The vectors go straight to their place in the finished file, so a build needs no room for a second copy. A
shard's line is written after its vectors were flushed to disk; a line cut short by a kill does not count.
"""

import os
from pathlib import Path

from retriever_server.index.flat_file import HEADER_BYTES, flat_header


class ShardLog:
    """The shards of a build and those already done; use as a context manager."""

    def __init__(self, path: Path, *, count: int, shard_rows: int) -> None:
        done = _read(path) if path.exists() else set()
        shards = [(start, min(start + shard_rows, count)) for start in range(0, count, shard_rows)]
        self.waiting = [shard for shard in shards if shard not in done]
        """(First row, last row + 1) of every shard that is still to be encoded."""

        self.num_done = count - sum(stop - start for start, stop in self.waiting)
        """Rows that are encoded."""

        self._file = path.open("ab")
        # A line cut short would swallow the next one.
        self._file.truncate(path.read_bytes().rfind(b"\n") + 1)

    def __enter__(self) -> "ShardLog":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, start: int, stop: int) -> None:
        """Note a shard as done. Raises OSError if it cannot be written."""
        self._file.write(b"%d %d\n" % (start, stop))
        self._file.flush()
        os.fsync(self._file.fileno())


def is_begun(path: Path, *, count: int, dim: int) -> bool:
    """Whether `begin_vectors` has made the file, whole."""
    return path.exists() and path.stat().st_size == HEADER_BYTES + 4 * count * dim


def begin_vectors(path: Path, *, count: int, dim: int) -> None:
    """Make the file of ``count`` vectors with a hole in place of each. Raises OSError."""
    with path.open("wb") as file:
        file.write(flat_header(count, dim))
        file.truncate(HEADER_BYTES + 4 * count * dim)


def write_vectors(path: Path, start: int, data: bytes, dim: int) -> None:
    """Write the float32 rows ``data`` at row ``start`` and flush them to disk. Raises OSError."""
    file = os.open(path, os.O_WRONLY)
    try:
        position = HEADER_BYTES + 4 * dim * start
        left = memoryview(data)
        while left:
            written = os.pwrite(file, left, position)
            left, position = left[written:], position + written
        os.fdatasync(file)
    finally:
        os.close(file)


def _read(path: Path) -> set[tuple[int, int]]:
    lines = path.read_bytes().split(b"\n")[:-1]
    return {(int(first), int(last)) for first, _, last in (line.partition(b" ") for line in lines)}
