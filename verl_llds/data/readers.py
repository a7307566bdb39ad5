"""Rows of a file, whatever its form: JSON lines, a JSON array, CSV, TSV or parquet.

Every row comes with the place it has in its file, which goes into messages. No file is held in memory as a whole:
HotpotQA's and 2Wiki's hold all their passages and have more than 500 MB.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from verl_llds.data.layouts import COLUMNS
from verl_llds.errors import DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Endings of the files that can be read."""

Row = dict[str, Any]
Placed = tuple[str, Row]
"""The place of a row ("file:line" or "file, row 3") and the row."""

_CHUNK_CHARS = 1 << 20
# Far longer than any question with its passages; what is wrong is not looked for in the whole file.
_MAX_OBJECT_CHARS = 1 << 24
# TriviaQA's files wrap their array into an object.
_ARRAY = re.compile(r"\s*(?:\{\s*\"Data\"\s*:\s*)?\[")
_BETWEEN = re.compile(r"[\s,]*")
# Far longer than any cell; csv's own limit is 131,072 characters.
_MAX_CELL_CHARS = 1 << 24


def read_rows(path: Path) -> Iterator[Placed]:
    """Yield the rows of a file with their places.

    Raises:
        DataError: if the file is absent, unreadable, or not of the form its ending says.
    """
    try:
        if path.suffix == ".parquet":
            yield from _read_parquet(path)
        elif path.suffix in SUFFIXES:
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield from _read_text(path, file)
        else:
            raise DataError(f"{path}: cannot tell its form from its ending: rename it to one of {', '.join(SUFFIXES)}")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}: convert it, or fetch it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}): check --source") from error


def _read_text(path: Path, file: TextIO) -> Iterator[Placed]:
    if path.suffix in (".csv", ".tsv"):
        return _read_table(path, file)
    if path.suffix == ".json":
        head = file.read(_CHUNK_CHARS)
        if match := _ARRAY.match(head):
            return _read_array(path, file, head[match.end() :])
        file.seek(0)
    return _read_lines(path, file)


def _read_lines(path: Path, file: TextIO) -> Iterator[Placed]:
    for number, line in enumerate(file, start=1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: no JSON ({error}): one object a line is needed; fetch the file again") from error
        yield where, _object(where, value)


def _read_array(path: Path, file: TextIO, buffer: str) -> Iterator[Placed]:
    decoder = json.JSONDecoder()
    number = position = 0
    while True:
        between = _BETWEEN.match(buffer, position)
        assert between is not None
        position = between.end()
        if buffer[position : position + 1] == "]":
            return
        where = f"{path}, row {number + 1}"
        try:
            value, end = decoder.raw_decode(buffer, position)
        except ValueError as error:
            more = "" if len(buffer) - position > _MAX_OBJECT_CHARS else file.read(_CHUNK_CHARS)
            if not more:
                raise DataError(f"{where}: no JSON, or cut short ({error}): fetch the file again") from error
            buffer, position = buffer[position:] + more, 0
            continue
        number += 1
        yield where, _object(where, value)
        position = end


def _read_table(path: Path, file: TextIO) -> Iterator[Placed]:
    csv.field_size_limit(_MAX_CELL_CHARS)
    reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
    try:
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                raise DataError(
                    f"{where}: not the {len(reader.fieldnames or ())} cells of the header: fetch the file again"
                )
            yield where, dict(row)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.reader.line_num}: {error}: fetch the file again") from error


def _read_parquet(path: Path) -> Iterator[Placed]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            # The passages that come with the questions are not decoded.
            columns = [name for name in file.schema_arrow.names if name in COLUMNS]
            if not columns:
                raise DataError(f"{path}: none of its columns {', '.join(file.schema_arrow.names)} is known")
            for batch in file.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: no parquet, or cut short ({error}): fetch the file again") from error


def _object(where: str, value: object) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{where}: not a JSON object but {json.dumps(value)[:40]}: fetch the file again")
    return value
