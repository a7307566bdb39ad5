"""Passages as DPR publishes them (``psgs_w100.tsv``): tab-separated id, text, title; a header; CSV's quotes."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from retriever_server.errors import CorpusError

_COLUMNS = ["id", "text", "title"]
# Far longer than any passage; csv's own limit is 131,072 characters.
_MAX_CHARS = 1 << 24


def read_tsv(source: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield ("file:line", ``{"id", "contents"}``) for every passage; the contents are title, newline, text.

    Raises:
        CorpusError: The file is no DPR file, or a line has not three columns.
        OSError: It cannot be read.
    """
    csv.field_size_limit(_MAX_CHARS)
    with source.open(encoding="utf-8", newline="") as file:
        try:
            yield from _rows(source, file)
        except UnicodeDecodeError as error:
            raise CorpusError(f"{source}: not UTF-8 ({error.reason}). Convert it and run again.") from error


def _rows(source: Path, file: TextIO) -> Iterator[tuple[str, dict[str, object]]]:
    reader = csv.reader(file, delimiter="\t")
    where = f"{source}:1"
    try:
        if next(reader, None) != _COLUMNS:
            raise CorpusError(f"{where}: the header is not id, text, title. Put it there and run again.")
        for row in reader:
            where = f"{source}:{reader.line_num}"
            if len(row) != len(_COLUMNS):
                raise CorpusError(f"{where}: {len(row)} columns, not 3 (id, text, title). Fix it and run again.")
            yield where, {"id": row[0], "contents": f"{row[2]}\n{row[1]}"}
    except csv.Error as error:
        raise CorpusError(f"{where}: after this line, {error}. Fix it and run again.") from error
