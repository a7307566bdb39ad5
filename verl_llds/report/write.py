"""From run folders to one HTML file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from tqdm import tqdm

from verl_llds.report.gather import Gathered, StepFiles, gather
from verl_llds.report.page import render
from verl_llds.report.payload import payload
from verl_llds.report.run_data import figures_data, run_data, unique_names
from verl_llds.report.run_folder import Run


def write_report(
    runs: Sequence[Run],
    out: Path,
    *,
    max_trajectories: int,
    written: datetime,
    correct_reward: float | None = None,
) -> Gathered:
    """Write the report of some runs, whole or not at all.

    Args:
        runs: in the order of the page; at least one.
        out: the HTML file; its folder is made if need be.
        max_trajectories: most trajectories the page holds; 0 for none.
        written: the time the page gives.
        correct_reward: see `verl_llds.report.gather.gather`.

    Returns:
        The trajectories the page holds, and how many were found; nothing was looked for where it holds none.

    Raises:
        RunFolderError: a file of trajectories is broken.
        OSError: the file cannot be written.
    """
    names = unique_names(runs)
    found = Gathered(rows=[], num_found=0)
    if max_trajectories:
        found = gather(runs, max_trajectories, _with_progress, correct_reward)
    page = render(
        title=f"{', '.join(names)} - verl-llds report",
        runs=[{**run_data(run), "name": name} for run, name in zip(runs, names, strict=True)],
        figures=figures_data(),
        trajectories=payload(found.rows, names, found.num_found) if found.rows else None,
        written=written,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    building = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        # ASCII and its own text alone: a lone surrogate of a folder's name is escaped, not refused.
        building.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
        os.replace(building, out)
    finally:
        building.unlink(missing_ok=True)
    return found


def _with_progress(files: list[tuple[int, StepFiles]]) -> Iterator[tuple[int, StepFiles]]:
    yield from tqdm(files, desc="trajectories", unit="file", delay=1)
