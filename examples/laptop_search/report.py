"""The before/after table of a run, from the trajectories verl dumps at each evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

GROUPS = {"laptop_1hop": "one hop", "laptop_2hop": "two hops"}


def read_dump(path: Path) -> list[dict[str, Any]]:
    """Return the records of one evaluation, one per question."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def dumps(directory: Path) -> list[Path]:
    """Return the evaluations in a directory in the order of their steps."""
    return sorted(directory.glob("*.jsonl"), key=lambda path: int(path.stem))


def table(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]], step: int) -> Table:
    """Return exact match and valid searches per question, by hop count, before and after."""
    result = Table(title=f"Held-out questions before and after {step} training steps", title_justify="left")
    for name in ("questions", "n", "EM before", "EM after", "change", "searches before", "searches after"):
        result.add_column(name, justify="left" if name == "questions" else "right")
    for source, label in [*GROUPS.items(), (None, "all")]:
        old, new = _rows(before, source), _rows(after, source)
        em = 100 * _mean(old, "acc"), 100 * _mean(new, "acc")
        searches = _mean(old, "num_searches"), _mean(new, "num_searches")
        result.add_row(
            label,
            str(len(new)),
            f"{em[0]:.1f}%",
            f"{em[1]:.1f}%",
            f"{em[1] - em[0]:+.1f}",
            f"{searches[0]:.2f}",
            f"{searches[1]:.2f}",
            end_section=label == "two hops",
        )
    return result


def _rows(records: Sequence[dict[str, Any]], source: str | None) -> list[dict[str, Any]]:
    return [record for record in records if source is None or record["data_source"] == source]


def _mean(records: Sequence[dict[str, Any]], key: str) -> float:
    return fmean(record[key] for record in records) if records else float("nan")
