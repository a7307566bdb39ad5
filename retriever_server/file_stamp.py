"""How the files of an index are known again without reading 65 GB at every start.

A file of the size and time of change that its manifest records is taken to be the same. One that was copied
or touched has another time: its SHA-256 is computed, once; that it was right is noted in ``checked.json``
beside it, with the time it had. ``retriever-server verify`` computes all of them, whatever the times.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from retriever_server.errors import IndexMismatchError
from retriever_server.files import sha256_file, write_json

CHECKED = "checked.json"
REMEDY = "build the index again with `retriever-server index --overwrite`"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileStamp:
    """How one file of the index looked when it was written."""

    bytes: int
    """Size."""

    mtime_ns: int
    """Time of the last change."""

    sha256: str
    """Checksum of the contents."""

    @classmethod
    def of(cls, path: Path) -> "FileStamp":
        """Stamp a file. Raises OSError if it cannot be read."""
        stat = path.stat()
        return cls(bytes=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=sha256_file(path))


def check_files(directory: Path, stamps: dict[str, FileStamp], *, every_byte: bool = False) -> None:
    """Check that the data files are those the manifest was written for.

    Args:
        directory: Where they are.
        stamps: What the manifest says of them.
        every_byte: Compute every checksum, instead of only those of files with another time of change.

    Raises:
        IndexMismatchError: A file is missing or different; the message names it.
    """
    checked = {} if every_byte else _read_checked(directory)
    times: dict[str, Any] = {}
    for name, stamp in stamps.items():
        path = directory / name
        try:
            stat = path.stat()
        except OSError as error:
            raise IndexMismatchError(f"{path} is missing ({error.strerror}); {REMEDY}.") from error
        if stat.st_size != stamp.bytes:
            raise IndexMismatchError(
                f"{path} has {stat.st_size} bytes, not {stamp.bytes}: changed or cut short; {REMEDY}."
            )
        known = [stamp.sha256, stat.st_mtime_ns]
        same_time = stat.st_mtime_ns == stamp.mtime_ns or checked.get(name) == known
        if (every_byte or not same_time) and sha256_file(path) != stamp.sha256:
            raise IndexMismatchError(f"{path} was changed after it was made (sha256 differs); {REMEDY}.")
        if stat.st_mtime_ns != stamp.mtime_ns:
            times[name] = known
    if times != checked:
        # A directory that cannot be written is checked in full at every start.
        with contextlib.suppress(OSError):
            write_json(directory / CHECKED, times)


def _read_checked(directory: Path) -> dict[str, Any]:
    try:
        found = orjson.loads((directory / CHECKED).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
