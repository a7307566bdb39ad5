"""Passages: checked line by line once, then read by memory map.

On disk a corpus is two files. ``passages.jsonl`` holds one compact ``{"id", "contents"}`` object a line,
ready to be spliced into a response. ``offsets.npy`` holds ``uint64[count + 1]``: row ``i`` is the bytes
from ``offsets[i]`` to ``offsets[i + 1]``.
"""

import mmap
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson

from retriever_server.corpus_tsv import read_tsv
from retriever_server.errors import CorpusError, IndexMismatchError
from retriever_server.files import atomic_write

_FORM = 'Each line must be {"id": "...", "contents": "Title\\ntext"}'


class Passage(NamedTuple):
    """One passage of the corpus."""

    id: str
    """Unique in the corpus."""

    contents: str
    """Title, newline, text."""


class Hit(NamedTuple):
    """One passage that a search found."""

    document: bytes
    """The passage as the bytes of its JSON object."""

    score: float
    """What it was ranked by, larger is better: an inner product, BM25's, the fused ranks' or the reranker's."""


def read_passages(source: Path) -> Iterator[tuple[str, Passage]]:
    """Yield ("file:line", passage) for every passage of a JSONL file, or of a ``.tsv`` file of DPR's.

    Raises:
        CorpusError: The file cannot be read, or a line is not a passage.
    """
    try:
        if source.suffix == ".tsv":
            for where, value in read_tsv(source):
                yield where, _passage(value, where)
            return
        with source.open("rb") as file:
            for number, line in enumerate(file, start=1):
                where = f"{source}:{number}"
                yield where, parse_passage(line, where)
    except OSError as error:
        raise unreadable(source, error) from error


def parse_passage(line: bytes, where: str) -> Passage:
    """Read one corpus line; ``where`` ("file:line") goes into the message.

    Raises:
        CorpusError: The line is not a passage.
    """
    if not line.strip():
        raise CorpusError(f"{where}: the line is blank. Delete it and run again.")
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise CorpusError(
            f"{where}: not valid JSON ({error.msg}, column {error.colno}). {_FORM}; fix it and run again."
        ) from error
    if not isinstance(value, dict):
        raise CorpusError(f"{where}: not a JSON object. {_FORM}; write one object a line and run again.")
    return _passage(value, where)


def _passage(value: dict[str, object], where: str) -> Passage:
    return Passage(_text(value, "id", where), _text(value, "contents", where))


def _text(value: dict[str, object], key: str, where: str) -> str:
    if key not in value:
        raise CorpusError(f'{where}: "{key}" is missing. {_FORM}; add it and run again.')
    text = value[key]
    if not isinstance(text, str):
        raise CorpusError(
            f'{where}: "{key}" must be a string, not {orjson.dumps(text)[:40].decode(errors="replace")}.'
            f" {_FORM}; fix the line and run again."
        )
    if not text.strip():
        raise CorpusError(f'{where}: "{key}" is empty. Fill it or delete the line, and run again.')
    return text


def unreadable(source: Path, error: OSError) -> CorpusError:
    """The error for a corpus file that the system would not open or read."""
    return CorpusError(f"{source}: cannot be read ({error.strerror}). Check the path given to --corpus.")


def import_corpus(source: Path, passages: Path, offsets: Path) -> int:
    """Check every line of ``source`` and write the two corpus files; returns the number of passages.

    Nothing is left behind when a line is wrong.

    Raises:
        CorpusError: The file is missing or empty, or a line is not a passage or repeats an id.
    """
    ends = array("Q", [0])
    # 8 bytes a passage instead of the id itself: 21 million ids as Python strings would need gigabytes.
    id_hashes = array("q")
    with atomic_write(passages) as file:
        for _, passage in read_passages(source):
            id_hashes.append(hash(passage.id))
            ends.append(ends[-1] + file.write(orjson.dumps(passage._asdict(), option=orjson.OPT_APPEND_NEWLINE)))
        if not id_hashes:
            raise CorpusError(f"{source}: there are no passages in it. {_FORM}; fill it and run again.")
        _check_unique(source, np.frombuffer(id_hashes, dtype=np.int64))
    with atomic_write(offsets) as file:
        np.save(file, np.frombuffer(ends, dtype=np.uint64))
    return len(id_hashes)


def _check_unique(source: Path, hashes: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    """Raise for the first id that an earlier line already has. Equal hashes only say where to look."""
    values, counts = np.unique(hashes, return_counts=True)
    if len(values) == len(hashes):
        return
    suspects = set(values[counts > 1].tolist())
    first: dict[str, str] = {}
    for where, passage in read_passages(source):
        if hash(passage.id) not in suspects:
            continue
        if passage.id in first:
            number = first[passage.id].rpartition(":")[2]
            raise CorpusError(
                f'{where}: the id "{passage.id}" is already on line {number}. Make ids unique and run again.'
            )
        first[passage.id] = where


class Corpus:
    """The passages of a finished index, read by memory map; safe to read from any thread.

    Neither the start nor the memory grow with the text: a page is read when a passage on it is found.

    Raises:
        IndexMismatchError: A file is missing or unreadable, or the offsets do not belong to the passages.
    """

    def __init__(self, passages: Path, offsets: Path) -> None:
        try:
            self._offsets = np.load(offsets, mmap_mode="r")
            with passages.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise IndexMismatchError(
                f"{offsets} or {passages.name} cannot be read ({error}); build the index again."
            ) from error
        if self._offsets.dtype != np.uint64 or self._offsets.ndim != 1 or len(self._offsets) < 2:
            raise IndexMismatchError(f"{offsets} holds no offsets; build the index again.")
        if int(self._offsets[-1]) != len(self._bytes):
            raise IndexMismatchError(f"{offsets} does not belong to {passages}; build the index again.")
        # Passages are found here and there; the system would read on after each.
        self._bytes.madvise(mmap.MADV_RANDOM)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def raw(self, row: int) -> bytes:
        """The passage as the bytes of its JSON object."""
        assert 0 <= row < len(self)
        return self._bytes[int(self._offsets[row]) : int(self._offsets[row + 1]) - 1]

    def contents(self, start: int, stop: int) -> list[str]:
        """The ``contents`` of rows ``start`` to ``stop``, the last excluded."""
        return [str(orjson.loads(self.raw(row))["contents"]) for row in range(start, stop)]
