"""Writes what verl's file logger writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def row(step: int, **values: float | None) -> str:
    data: dict[str, Any] = {"critic/score/mean": step / 100, "timing_s/step": 2.0, "llds/phase": 0}
    return json.dumps({"step": step, "data": {**data, **values}}) + "\n"


def write(path: Path, *steps: int, mode: str = "w", **values: float | None) -> None:
    with path.open(mode) as lines:
        lines.writelines(row(step, **values) for step in steps)
