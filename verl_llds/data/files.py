"""Files that are whole or absent, their hashes, and one writer at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from verl_llds.errors import DataError

BLOCK_BYTES = 1 << 22
"""What is read at once."""

MANIFEST = "manifest.json"
"""What was made from what; written last."""

_LOCK = ".lock"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to; what is there takes the place of ``path`` when the block succeeds."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write indented JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what `write_json` wrote, or None if there is no such file.

    Raises:
        DataError: for a file that is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}): delete it, or choose another --out") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is not what this command writes: delete it, or choose another --out")
    return value


def sha256_file(path: Path, progress: Callable[[int], object] | None = None) -> str:
    """Return the hex SHA-256 of a file; ``progress`` is told how many bytes each block had."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            if progress is not None:
                progress(len(block))
    return digest.hexdigest()


@contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Make the directory and keep other calls of this command out of it.

    Raises:
        DataError: if another process is writing there.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{out}: another process is writing there: wait for it, or choose another --out") from error
        yield
