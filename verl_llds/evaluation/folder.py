"""The folder of an evaluation: one JSONL file, a header and then a line for each episode, that can be gone on with.

A line is written when its episode has ended. A process that is killed leaves at most one line cut off, which is
dropped; the same command then plays what is missing, and anew what failed by no fault of the policy's. A later line
of an episode counts instead of an earlier one.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from verl_llds.data.files import write_json
from verl_llds.errors import EvaluationError
from verl_llds.evaluation.summary import METRICS
from verl_llds.search.trajectory import EpisodeStatus

FILE = "trajectories.jsonl"
SUMMARY = "summary.json"
FORMAT = 1

Row = Mapping[str, Any]

_NEEDED = (
    *("uid", "question", "sample", "number", "data_source", "gts", "status", *METRICS),
    *("turns", "num_searches", "num_policy", "num_observation", "seconds"),
)
"""What numbers and comparisons are made of."""

_STATUSES = tuple(one.value for one in EpisodeStatus)


class EvalFolder:
    """An evaluation's folder, open for adding to; a context manager."""

    def __init__(self, path: Path) -> None:
        """Take a folder, which is made where it is missing."""
        self._path = path
        self._file: IO[bytes] | None = None
        self.rows: dict[str, Row] = {}

    def open(self, header: Mapping[str, Any]) -> Mapping[str, Any]:
        """Begin the file, or go on with one of the same settings; return the header it has.

        Raises:
            EvaluationError: if the folder holds something else, another process writes to it, or it is another
                evaluation's; the settings that differ are named.
        """
        path = self._path / FILE
        if self._path.exists() and not path.exists() and any(self._path.iterdir()):
            raise EvaluationError(f"--out {self._path} holds something else: give an empty or a new folder")
        self._path.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise EvaluationError(
                f"another evaluation is writing to {path}: wait for it, or give another --out"
            ) from error
        _drop_cut_line(self._file)
        found = list(_lines(path)) if path.stat().st_size else []
        if not found:
            self._write({"kind": "header", "format": FORMAT, **header})
            return header
        old, rows = _parts(path, found)
        _refuse_other(path, old, header)
        self.rows = rows
        return old

    def __enter__(self) -> EvalFolder:
        """Return the folder."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file and give up its lock."""
        if self._file is not None:
            self._file.close()

    def missing(self, keys: list[str]) -> list[str]:
        """Return which episodes are still to be played: those without a line, and those whose line says they failed."""
        return [key for key in keys if key not in self.rows or EpisodeStatus(self.rows[key]["status"]).is_failure]

    def add(self, row: Row) -> None:
        """Write a line."""
        self.rows[row["uid"]] = row
        self._write(row)

    def save_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the numbers beside the trajectories, whole or not at all."""
        write_json(self._path / SUMMARY, dict(summary))

    def _write(self, values: Mapping[str, Any]) -> None:
        assert self._file is not None, "the folder is open"
        self._file.write(json.dumps(values, ensure_ascii=False).encode() + b"\n")
        # In the kernel's hands it outlives this process.
        self._file.flush()


def read_evaluation(path: Path) -> tuple[Row, dict[str, Row]]:
    """Return the header and the lines by episode of a folder, or of its file.

    Raises:
        EvaluationError: if it is no evaluation's.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise EvaluationError(f"{path} holds no evaluation ({FILE}): give what `verl-llds eval --out` was given")
    return _parts(file, list(_lines(file)))


def _drop_cut_line(file: IO[bytes]) -> None:
    size = file.seek(0, os.SEEK_END)
    keep = size
    while keep:
        start = max(0, keep - 2**16)
        file.seek(start)
        newline = file.read(keep - start).rfind(b"\n")
        if newline >= 0:
            keep = start + newline + 1
            break
        keep = start
    if keep < size:
        file.truncate(keep)


def _lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                value = json.loads(line)
            except ValueError as error:
                raise EvaluationError(f"{path}, line {number} is no JSON ({error}): the file is damaged") from error
            if not isinstance(value, dict):
                raise EvaluationError(f"{path}, line {number} is no JSON object: the file is damaged")
            yield value


def _parts(path: Path, lines: list[Row]) -> tuple[Row, dict[str, Row]]:
    header = lines[0] if lines else {}
    is_header = header.get("kind") == "header" and header.get("format") == FORMAT
    if not is_header or not all(isinstance(header.get(name), dict) for name in ("settings", "facts")):
        raise EvaluationError(
            f"{path} does not begin with the header of an evaluation of format {FORMAT}: it is something else, or of "
            "another version"
        )
    for number, row in enumerate(lines[1:], start=2):
        _check_row(f"{path}, line {number}", row)
    return header, {row["uid"]: row for row in lines[1:]}


def _check_row(where: str, row: Row) -> None:
    missing = [name for name in _NEEDED if row.get(name) is None]
    if missing:
        raise EvaluationError(f"{where} has no {', '.join(missing)}: the file is damaged, or of another version")
    if row["status"] not in _STATUSES:
        raise EvaluationError(f"{where} has the unknown status {row['status']!r}: the file is of another version")


def _refuse_other(path: Path, old: Row, new: Row) -> None:
    differences = [
        f"{name} is {old['settings'].get(name)!r} there and {new['settings'].get(name)!r} here"
        for name in dict.fromkeys([*old["settings"], *new["settings"]])
        if old["settings"].get(name) != new["settings"].get(name)
    ]
    if differences:
        raise EvaluationError(
            f"{path} is another evaluation's: {'; '.join(differences)}. Give another --out, or the same settings"
        )
