"""What a run left behind: its metrics, verl's dumps and the token-level trajectories, found in its folder."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import merge
from pathlib import Path
from typing import Any

from verl_llds.errors import RunFolderError
from verl_llds.report.events import read_events
from verl_llds.report.metrics_log import MetricsLog, parse_json, read_lines
from verl_llds.trajectories.reader import list_steps

_MAX_DEPTH = 6
_PASSED_OVER = re.compile(r"global_step_\d+|\..*|wandb|__pycache__")
"""Folders that hold no logs, and may hold very many files."""

_DUMP = re.compile(r"(\d+)\.jsonl")
_PIECE = re.compile(r"(?:\.start(?P<start>\d+))?\.jsonl(?:\.(?P<rotation>\d+))?$")
"""``metrics.jsonl``, and what came before it.

``metrics.start1.jsonl`` is the run's first start, ``.start2`` its second
(`verl_llds.diagnostics.history.keep_earlier_metrics`). ``metrics.jsonl.2`` was rotated before ``metrics.jsonl.1``.
"""

_EVENTS = "events.out.tfevents."

_WHERE = (
    "give the folder or the JSONL file of verl's file logger, which trainer.logger='[console,file]' turns on: "
    "VERL_FILE_LOGGER_PATH, or <project_name>/<experiment_name>.jsonl in the folder the run was started in; a recipe's "
    "lies in its trainer.default_local_dir"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run."""

    name: str
    """For legends: the name of its folder or file."""
    folder: Path
    """Where it lies."""
    metrics: dict[int, dict[str, float]]
    """Values by name of each step, ascending; NaN where one was not finite."""
    rollouts: dict[int, Path] = field(default_factory=dict)
    """verl's rollout dumps (``trainer.rollout_data_dir``) by step."""
    validations: dict[int, Path] = field(default_factory=dict)
    """verl's validation dumps (``trainer.validation_data_dir``) by step."""
    trajectories: Path | None = None
    """The folder of token-level trajectories, see `verl_llds.trajectories.reader`."""
    num_broken: int = 0
    """Lines of the metrics that could not be read and were passed over."""
    vanished: list[Path] = field(default_factory=list)
    """Files that were listed but are not there, such as links to nothing, and were passed over."""

    def series(self, metric: str) -> tuple[list[int], list[float]]:
        """Return the steps that have a metric, and its values."""
        found = [(step, values[metric]) for step, values in self.metrics.items() if metric in values]
        return [step for step, _ in found], [value for _, value in found]


@dataclass(kw_only=True)
class _Found:
    """Files of a folder by what they are."""

    logs: list[Path] = field(default_factory=list)
    events: list[Path] = field(default_factory=list)
    rollouts: dict[int, Path] = field(default_factory=dict)
    validations: dict[int, Path] = field(default_factory=dict)
    trajectories: list[Path] = field(default_factory=list)
    vanished: list[Path] = field(default_factory=list)


def read_run(path: Path) -> Run:
    """Return what a run left behind.

    Args:
        path: its folder, which holds one run; or the file of its metrics alone.

    Raises:
        RunFolderError: there is nothing there, or no metrics, or those of several runs, or a file cannot be read.
    """
    found = _look(path)
    log = _metrics(path, found)
    if len(found.trajectories) > 1:
        raise RunFolderError(
            f"{path} holds the trajectories of several runs, {_listed(found.trajectories)}: give the folder of one"
        )
    return Run(
        name=path.resolve().name.removesuffix(".jsonl"),
        folder=path,
        metrics=log.steps,
        rollouts=dict(sorted(found.rollouts.items())),
        validations=dict(sorted(found.validations.items())),
        trajectories=found.trajectories[0] if found.trajectories else None,
        num_broken=log.num_broken,
        vanished=found.vanished,
    )


def find_events(path: Path) -> list[Path]:
    """Return TensorBoard's event files of a run, in the order they were begun; none if there are none yet.

    Raises:
        RunFolderError: there is no such path, or it holds those of several runs.
    """
    return _one_folder(path, _look(path).events)


def find_log(path: Path) -> list[Path]:
    """Return the JSONL files of a run's metrics, one for each start of the run; none if there are none yet.

    The last one is written to.

    Raises:
        RunFolderError: there is no such path, or it holds the metrics of several runs.
    """
    return _pieces(path, _look(path).logs)


def _look(path: Path) -> _Found:
    if path.is_file():
        is_events = path.name.startswith(_EVENTS)
        return _Found(events=[path]) if is_events else _Found(logs=[path])
    if not path.is_dir():
        raise RunFolderError(f"there is no {path}: {_WHERE}")
    found = _Found()
    try:
        for folder, names in _folders(path):
            if list_steps(folder):
                found.trajectories.append(folder)
            for name in names:
                _sort_in(folder / name, found)
    except OSError as error:
        raise RunFolderError(f"cannot read {error.filename or path}: {error.strerror}") from error
    return found


def _folders(path: Path) -> Iterator[tuple[Path, list[str]]]:
    for folder, inner, names in os.walk(path):
        depth = len(Path(folder).relative_to(path).parts)
        inner[:] = sorted(name for name in inner if depth < _MAX_DEPTH and not _PASSED_OVER.fullmatch(name))
        yield Path(folder), sorted(names)


def _sort_in(path: Path, found: _Found) -> None:
    if path.name.startswith(_EVENTS):
        (found.events if path.exists() else found.vanished).append(path)
    elif _PIECE.search(path.name):
        try:
            first = _first_line(path)
        except FileNotFoundError:
            # A link to nothing, or rotated away since the folder was listed.
            found.vanished.append(path)
            return
        dump = _DUMP.fullmatch(path.name)
        if dump and "output" in first:
            kind = found.validations if "reward" in first else found.rollouts
            kind[int(dump[1])] = path
        elif "step" in first and "data" in first:
            found.logs.append(path)


def _first_line(path: Path) -> dict[str, Any]:
    """Return the first object of a JSONL file; an empty one if it has none."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        try:
            row = parse_json(next(lines, ""))
        except ValueError:
            return {}
    return row if isinstance(row, dict) else {}


def _metrics(path: Path, found: _Found) -> MetricsLog:
    if found.logs:
        log = read_lines(_pieces(path, found.logs))
    else:
        log = read_events(_one_folder(path, found.events)) if found.events else MetricsLog()
    if not log.steps:
        raise RunFolderError(f"{path} holds no metrics of a run: {_WHERE}")
    return log


def _one_folder(path: Path, events: list[Path]) -> list[Path]:
    folders = sorted({file.parent for file in events})
    if len(folders) > 1:
        raise RunFolderError(f"{path} holds several runs, {_listed(folders)}: give one of them")
    return events


def _pieces(path: Path, logs: list[Path]) -> list[Path]:
    """Return the files of one run in the order they were written.

    Raises:
        RunFolderError: they are of several runs.
    """
    runs = {log.parent / _PIECE.sub("", log.name) for log in logs}
    if len(runs) > 1:
        raise RunFolderError(f"{path} holds the metrics of several runs, {_listed(sorted(runs))}: give one of them")
    in_order = sorted(logs, key=_order)
    starts = [log for log in in_order if _order(log)[0] < math.inf]
    rotated = [log for log in in_order if log not in starts]
    # The bare name is always the latest; what was put aside in two ways is ordered by its age alone.
    latest = [rotated.pop()] if rotated and rotated[-1].suffix == ".jsonl" else []
    return [*(merge(starts, rotated, key=_written_at) if starts and rotated else starts + rotated), *latest]


def _order(log: Path) -> tuple[float, int]:
    """Return a key by which the pieces of a run that were put aside in the same way are in order."""
    piece = _PIECE.search(log.name)
    if piece is None:
        # A file that was given by itself may have any name.
        return math.inf, 0
    return float(piece["start"] or math.inf), -int(piece["rotation"] or 0)


def _written_at(log: Path) -> int:
    try:
        return log.stat().st_mtime_ns
    except OSError as error:
        raise RunFolderError(f"cannot read the metrics {log}: {error.strerror}") from error


def _listed(paths: list[Path]) -> str:
    shown = ", ".join(str(path) for path in paths[:4])
    return f"{shown} and {len(paths) - 4} more" if len(paths) > 4 else shown
