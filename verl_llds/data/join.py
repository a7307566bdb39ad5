"""Joining the parts of a large file in place: what has been copied is taken off its part at once.

The parts are copied from their ends and cut there as soon as the copy is on disk, so that parts and whole together
never need more than their own size and one block. The first part becomes the whole by renaming where it can. What is
left to do can be seen from the parts themselves, so a call after ``kill -9`` at any point goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from verl_llds.data.files import read_json, write_json
from verl_llds.errors import DataError

BLOCK_BYTES = 64 << 20
"""What is copied before the part is cut; the room that is needed on top."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part and its place in the whole."""

    path: Path
    """Where it is."""
    num_bytes: int
    """Its size before anything was taken off it."""
    offset: int
    """Where it begins in the whole."""

    @property
    def num_left(self) -> int:
        """Bytes that are still to be copied."""
        return self.path.stat().st_size if self.path.exists() else 0


def joining_path(target: Path) -> Path:
    """Return where the whole grows."""
    return target.with_name(f"{target.name}.joining")


def plan_path(target: Path) -> Path:
    """Return where the sizes of the parts are kept; while it is there, a joining has begun and is not finished."""
    return target.with_name(f"{target.name}.joining.json")


def join_parts(parts: Sequence[Path], target: Path, progress: Callable[[int], object]) -> None:
    """Make ``target`` out of the parts, which are used up.

    Args:
        parts: in order. Once a joining has begun, those of its plan count.
        target: the whole; it appears when it is complete.
        progress: told how many bytes are done, those of earlier calls included.

    Raises:
        DataError: if a part has gone or changed since the joining began.
    """
    plan = _read_plan(target) or _make_plan(parts, target)
    whole = joining_path(target)
    total = plan[-1].offset + plan[-1].num_bytes
    _check(plan, whole)
    first = plan[0]
    if not whole.exists():
        _begin(first.path, whole)
    with whole.open("r+b") as file:
        # Sparse: room is taken as blocks arrive.
        if file.seek(0, os.SEEK_END) < total:
            file.truncate(total)
        progress(total - sum(part.num_left for part in plan))
        for part in plan:
            _take(part, file, progress)
    os.replace(whole, target)
    plan_path(target).unlink()


def _make_plan(parts: Sequence[Path], target: Path) -> list[Part]:
    plan: list[Part] = []
    for path in parts:
        offset = plan[-1].offset + plan[-1].num_bytes if plan else 0
        plan.append(Part(path=path, num_bytes=path.stat().st_size, offset=offset))
    write_json(
        plan_path(target), {"parts": [{"path": str(part.path.resolve()), "bytes": part.num_bytes} for part in plan]}
    )
    return plan


def _read_plan(target: Path) -> list[Part] | None:
    value = read_json(plan_path(target))
    if value is None:
        return None
    plan: list[Part] = []
    for one in value["parts"]:
        offset = plan[-1].offset + plan[-1].num_bytes if plan else 0
        plan.append(Part(path=Path(one["path"]), num_bytes=int(one["bytes"]), offset=offset))
    return plan


def _check(plan: Sequence[Part], whole: Path) -> None:
    for part in plan:
        if part.num_left > part.num_bytes:
            raise DataError(
                f"{part.path} has grown since its joining began, from {part.num_bytes} to {part.num_left} bytes: "
                f"delete {whole} and {whole}.json, and begin with whole parts"
            )
        if not whole.exists() and part.num_left < part.num_bytes:
            raise DataError(
                f"{part.path} is not whole and {whole} is gone: delete {whole}.json and the parts, and fetch them again"
            )


def _begin(first: Path, whole: Path) -> None:
    try:
        os.replace(first, whole)
    except OSError:
        # On another file system: it is copied like the others.
        whole.touch()


def _take(part: Part, file: BinaryIO, progress: Callable[[int], object]) -> None:
    left = part.num_left
    while left:
        start = max(0, left - BLOCK_BYTES)
        with part.path.open("r+b") as source:
            source.seek(start)
            file.seek(part.offset + start)
            file.write(source.read(left - start))
            file.flush()
            os.fsync(file.fileno())
            source.truncate(start)
        progress(left - start)
        left = start
    part.path.unlink(missing_ok=True)
