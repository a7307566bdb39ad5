"""The metrics of a run as verl's loggers left them, in as many pieces as the run was started.

verl's file logger writes one JSON object a line with ``step`` and ``data``, the step's metrics by name, and begins its
file anew when a run resumes. A piece that begins at a step replaces everything that earlier pieces say of it and of
what follows: a resumed run repeats the steps after its checkpoint, a run started anew repeats all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from verl_llds.errors import RunFolderError

_MAX_STEP = 2**53
"""Beyond it, a page's numbers are no longer exact."""


class MetricsLog:
    """Metrics by step, read piece by piece.

    Attributes:
        steps: ascending; each step's finite or non-finite values by name.
        restarts: the first steps of pieces that began at or below a step that was known.
        num_broken: lines that were no rows of a file logger.
    """

    def __init__(self) -> None:
        self.steps: dict[int, dict[str, float]] = {}
        self.restarts: list[int] = []
        self.num_broken = 0
        self._is_new_piece = False

    def begin_piece(self) -> None:
        """Say that what is added next comes from a later piece: the run started again, or its file was rotated."""
        self._is_new_piece = True

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Take a step's metrics; those of a step that was logged twice in one piece are joined."""
        if self._is_new_piece and self.steps and step <= next(reversed(self.steps)):
            self.steps = {known: data for known, data in self.steps.items() if known < step}
            self.restarts.append(step)
        self._is_new_piece = False
        is_last = not self.steps or step >= next(reversed(self.steps))
        self.steps.setdefault(step, {}).update(values)
        if not is_last:
            self.steps = dict(sorted(self.steps.items()))

    def add_line(self, line: str) -> None:
        """Take a line of verl's file logger; one that is no row is counted."""
        if not line.strip():
            return
        try:
            row = parse_line(line)
        except ValueError:
            self.num_broken += 1
            return
        if row is not None:
            self.add(*row)


def parse_line(line: str) -> tuple[int, dict[str, float]] | None:
    """Return the step and the numbers of one line; None for an object without a step, such as a header.

    verl writes what is not finite as ``null``: it comes back as NaN. Texts and lists are left out.

    Raises:
        ValueError: the line is no JSON object, or its step or its data are not what a file logger writes.
    """
    row = parse_json(line)
    if not isinstance(row, dict):
        raise ValueError("no JSON object")
    if "step" not in row:
        return None
    step, data = row["step"], row.get("data")
    if isinstance(step, bool) or not isinstance(step, int) or abs(step) > _MAX_STEP or not isinstance(data, dict):
        raise ValueError("no step or no data")
    numbers = {name: _number(value) for name, value in data.items()}
    return step, {name: value for name, value in numbers.items() if value is not None}


def _number(value: Any) -> float | None:
    if value is None:
        return math.nan
    if not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError("a whole number too large for a float") from error


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is none, or nests too deep to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def read_lines(paths: Iterable[Path]) -> MetricsLog:
    """Return the metrics of JSONL files, each one start of the run, in the order of the starts.

    A last line that is cut off, as in a run that goes on, is no fault.

    Raises:
        RunFolderError: a file cannot be read.
    """
    log = MetricsLog()
    for path in paths:
        log.begin_piece()
        try:
            with path.open(encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if line.endswith("\n") or _is_whole(line):
                        log.add_line(line)
        except OSError as error:
            raise RunFolderError(f"cannot read the metrics {path}: {error.strerror}") from error
    return log


def _is_whole(line: str) -> bool:
    return line.rstrip().endswith("}}")
