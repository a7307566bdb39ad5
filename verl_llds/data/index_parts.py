"""The published e5 index: its parts checked, joined, and the whole checked against the passages."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from verl_llds.data.files import sha256_file
from verl_llds.data.join import join_parts
from verl_llds.data.published import INDEX_DIM
from verl_llds.errors import DataError

INDEX_FILE = "e5_Flat.index"
"""Search-R1's name of the whole."""

# FAISS, ``impl/index_write.cpp``: kind, dimension, count; the vectors begin after 45 bytes.
_HEADER = struct.Struct("<4siq")
_HEADER_BYTES = 45
_FLAT_INNER_PRODUCT = b"IxFI"


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorIndex:
    """A FAISS flat inner-product index."""

    path: Path
    """Where it is."""
    count: int
    """Vectors in it."""
    num_bytes: int
    """Its size."""


def check_index(first: Path, num_bytes: int, num_passages: int) -> VectorIndex:
    """Check the head of an index and its size, before its parts are used up or after.

    Args:
        first: the index, or its first part.
        num_bytes: size of the whole.
        num_passages: of the corpus it must belong to.

    Raises:
        DataError: if it is no flat index of e5's vectors, or not of these passages.
    """
    with first.open("rb") as file:
        head = file.read(_HEADER.size)
    if len(head) < _HEADER.size or not head.startswith(_FLAT_INNER_PRODUCT):
        raise DataError(f"{first} is no FAISS IndexFlatIP, nor its first part (it begins with {head[:4]!r}): fetch it")
    _, dim, count = _HEADER.unpack(head)
    expected = index_bytes(count, dim)
    if dim != INDEX_DIM:
        raise DataError(f"{first} holds vectors of {dim}, intfloat/e5-base-v2 gives {INDEX_DIM}: give the e5 index")
    if count != num_passages:
        raise DataError(
            f"{first} is of {count:,} vectors, there are {num_passages:,} passages: give an index and passages that "
            "belong together, or add --no-index"
        )
    if num_bytes != expected:
        raise DataError(
            f"{first} with what follows it has {num_bytes:,} bytes, {count:,} vectors of {dim} need {expected:,}: "
            "a part is missing or cut short; fetch it again"
        )
    return VectorIndex(path=first, count=count, num_bytes=num_bytes)


def check_total(num_bytes: int, num_passages: int) -> None:
    """Refuse parts of another size than the index of the passages has, before they are fetched.

    Raises:
        DataError: naming both sizes.
    """
    expected = index_bytes(num_passages, INDEX_DIM)
    if num_bytes != expected:
        raise DataError(
            f"the hub's parts of the e5 index have {num_bytes:,} bytes together, {num_passages:,} vectors of "
            f"{INDEX_DIM} need {expected:,}: they are of other passages; add --no-index and encode these anew"
        )


def index_bytes(count: int, dim: int) -> int:
    """Return the size of a flat index: header and float32 vectors."""
    return _HEADER_BYTES + count * dim * 4


def check_part(path: Path, sha256: str | None) -> None:
    """Refuse a fetched part whose bytes are not the hub's, and delete it.

    Raises:
        DataError: if they differ.
    """
    if sha256 is None:
        return
    with _bar(path.stat().st_size, f"checking {path.name}") as bar:
        found = sha256_file(path, bar.update)
    if found != sha256:
        path.unlink()
        raise DataError(
            f"{path} was damaged on its way (SHA-256 {found}, the hub's is {sha256}): run again to fetch it"
        )


def join_index(parts: Sequence[Path], target: Path) -> None:
    """Join the parts in place; goes on where an earlier call was stopped.

    Raises:
        DataError: if a part has gone or changed since.
    """
    with _bar(None, f"joining {target.name}") as bar:
        join_parts(parts, target, bar.update)


def _bar(total: int | None, description: str) -> tqdm:
    return tqdm(total=total, desc=description, unit="B", unit_scale=True, disable=None, leave=False)
