"""Whether there is room for what is to come, told before it comes."""

from __future__ import annotations

import shutil
from pathlib import Path

from verl_llds.data.join import BLOCK_BYTES
from verl_llds.errors import DataError


def check_room(out: Path, num_bytes: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        DataError: naming what is needed and what is free.
    """
    needed = max(num_bytes, 0) + BLOCK_BYTES
    free = shutil.disk_usage(out).free
    if free < needed:
        raise DataError(
            f"{out}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free: make room, or choose another --out"
        )


def num_bytes_under(folder: Path) -> int:
    """Return the room that the files under a folder take; 0 if there is no such folder."""
    return sum(512 * path.stat().st_blocks for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0
