"""The passages of wiki-18 as JSON lines: decompressed or converted in one stream, counted and hashed on the way.

A line is ``{"id": "0", "contents": "\\"Title\\"\\ntext"}``. DPR's ``psgs_w100.tsv`` holds the same passages in the same
order as tab-separated id, text and title, with ids from 1.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tqdm import tqdm

from verl_llds.data.files import BLOCK_BYTES, replacing
from verl_llds.errors import DataError

PASSAGES_FILE = "wiki-18.jsonl"

SOURCES = (PASSAGES_FILE, f"{PASSAGES_FILE}.gz", "psgs_w100.tsv", "psgs_w100.tsv.gz")
"""What is looked for in a directory, the first choice first."""

_TSV_COLUMNS = ["id", "text", "title"]
_MAX_CELL_CHARS = 1 << 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Passages:
    """A file of passages."""

    path: Path
    """Where it is."""
    count: int
    """Lines in it."""
    num_bytes: int
    """Its size."""
    sha256: str
    """Of its bytes."""


def read_passages_file(path: Path) -> Passages:
    """Count and hash a file of JSON lines where it lies.

    Raises:
        DataError: if its first line is no passage, or its last line has no end.
    """
    return _tally(path, path, _blocks(path), None)


def write_passages(source: Path, target: Path) -> Passages:
    """Write the passages of a ``.jsonl.gz``, ``.tsv`` or ``.tsv.gz`` file as JSON lines, whole or not at all.

    Raises:
        DataError: if the source is damaged, or is of another form.
    """
    is_table = source.name.removesuffix(".gz").endswith(".tsv")
    with replacing(target) as temporary:
        with temporary.open("wb") as out:
            made = _tally(source, target, _converted(source) if is_table else _blocks(source), out)
        return made


def _tally(source: Path, path: Path, blocks: Iterable[bytes], out: IO[bytes] | None) -> Passages:
    digest = hashlib.sha256()
    count = num_bytes = 0
    last = b""
    for block in blocks:
        if not num_bytes:
            _check_first(source, block)
        digest.update(block)
        count += block.count(b"\n")
        num_bytes += len(block)
        if out is not None:
            out.write(block)
        last = block
    if not last.endswith(b"\n"):
        raise DataError(f"{source}:{count + 1}: the last line has no end, so the file is cut short: fetch it again")
    return Passages(path=path, count=count, num_bytes=num_bytes, sha256=digest.hexdigest())


def _check_first(source: Path, block: bytes) -> None:
    try:
        passage = json.loads(block.partition(b"\n")[0])
        is_passage = isinstance(passage["id"], str) and isinstance(passage["contents"], str)
    except (ValueError, KeyError, TypeError):
        is_passage = False
    if not is_passage:
        raise DataError(
            f'{source}:1: no passage {{"id": "...", "contents": "Title\\ntext"}}: give one of {", ".join(SOURCES)}'
        )


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file, decompressed."""
    size = path.stat().st_size
    with (
        path.open("rb") as raw,
        tqdm.wrapattr(raw, "read", total=size, desc=path.name, disable=None, leave=False) as watched,
    ):
        stream = gzip.GzipFile(fileobj=watched) if path.suffix == ".gz" else watched
        try:
            while block := stream.read(BLOCK_BYTES):
                yield block
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path} is damaged or cut short ({error}): delete it and fetch it again") from error


def _converted(path: Path) -> Iterator[bytes]:
    """Yield the rows of DPR's file as lines of JSON.

    Raises:
        DataError: naming the line that has not DPR's three cells.
    """
    csv.field_size_limit(_MAX_CELL_CHARS)
    reader = csv.reader(_lines(path), delimiter="\t")
    try:
        if next(reader, None) != _TSV_COLUMNS:
            raise DataError(f"{path}:1: the header is not id, text, title: give DPR's psgs_w100.tsv")
        for row in reader:
            if len(row) != len(_TSV_COLUMNS) or not row[0].isdecimal():
                raise DataError(f"{path}:{reader.line_num}: not a number, a text and a title: fetch the file again")
            id_, text, title = row
            passage = {"id": str(int(id_) - 1), "contents": f'"{title}"\n{text}'}
            yield json.dumps(passage, ensure_ascii=False).encode() + b"\n"
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}:{reader.line_num}: {error}: fetch the file again") from error


def _lines(path: Path) -> Iterator[str]:
    """Yield the text lines of a file with their ends."""
    rest = b""
    for block in _blocks(path):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line.decode() + "\n"
    if rest:
        yield rest.decode()
