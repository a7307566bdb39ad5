"""Follows the metrics of a run that goes on, through rotation, truncation and new starts.

verl's file logger empties its file when a run starts again. What was read before is kept, and the new start replaces
it from its first step on, see `verl_llds.report.metrics_log.MetricsLog`.
"""

from __future__ import annotations

import os
from io import BufferedReader
from pathlib import Path

from verl_llds.report.events import read_events
from verl_llds.report.metrics_log import MetricsLog, read_lines
from verl_llds.report.run_folder import find_events, find_log

_HEAD_BYTES = 512
"""Bytes at a file's beginning that tell whether it is still the same one: they hold times of the first step."""


class RunTail:
    """The metrics of one run, up to date after each `poll`.

    Attributes:
        log: what has been read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = MetricsLog()
        self._file: _FileTail | None = None
        self._event_sizes: dict[Path, int] = {}

    def poll(self) -> bool:
        """Read what is new, and return whether there was anything.

        Raises:
            RunFolderError: there is no such path, or it holds the metrics of several runs.
        """
        if self._file is None:
            pieces = find_log(self.path)
            if not pieces:
                return self._poll_events()
            self.log = read_lines(pieces[:-1])
            self._file = _FileTail(pieces[-1])
        return self._take(self._file)

    @property
    def written_at(self) -> float | None:
        """When the metrics were last written to, in seconds since the epoch; None while there are none."""
        files = [self._file.path] if self._file is not None else list(self._event_sizes)
        return max((found.st_mtime for file in files if (found := _stat(file)) is not None), default=None)

    def _take(self, file: _FileTail) -> bool:
        lines, is_new_start = file.read()
        if is_new_start:
            self.log.begin_piece()
        for line in lines:
            self.log.add_line(line)
        return bool(lines)

    def _poll_events(self) -> bool:
        events = find_events(self.path)
        sizes = {path: found.st_size for path in events if (found := _stat(path)) is not None}
        if not sizes or sizes == self._event_sizes:
            return False
        self._event_sizes = sizes
        self.log = read_events(list(sizes))
        return True


def _stat(path: Path) -> os.stat_result | None:
    """Return the facts of a file; None where it has gone since it was found."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


class _FileTail:
    """Whole lines of a file as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: BufferedReader | None = None
        self._head = b""
        self._rest = b""

    def read(self) -> tuple[list[str], bool]:
        """Return the new whole lines, and whether they begin a new start of the run.

        What was written to a file before it was put aside is returned first, by itself.
        """
        if self._open is not None and self._is_replaced():
            lines = self._lines()
            self._open.close()
            self._open = None
            if lines:
                return lines, False
        if self._open is None:
            return self._begin()
        if self._is_rewritten():
            self._open.close()
            return self._begin()
        return self._lines(), False

    def _begin(self) -> tuple[list[str], bool]:
        self._open, self._head, self._rest = None, b"", b""
        try:
            self._open = self.path.open("rb")
        except FileNotFoundError:
            return [], False
        return self._lines(), True

    def _is_replaced(self) -> bool:
        assert self._open is not None
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(self._open.fileno()))
        except FileNotFoundError:
            # Put aside, and the run may go on writing to it until there is another one.
            return False

    def _is_rewritten(self) -> bool:
        assert self._open is not None
        at = self._open.tell()
        if os.fstat(self._open.fileno()).st_size < at:
            return True
        self._open.seek(0)
        head = self._open.read(len(self._head))
        self._open.seek(at)
        return head != self._head

    def _lines(self) -> list[str]:
        assert self._open is not None
        is_first = self._open.tell() == 0
        data = self._open.read()
        if is_first or len(self._head) < _HEAD_BYTES:
            self._head = (self._head + data)[:_HEAD_BYTES]
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in lines if line.strip()]
