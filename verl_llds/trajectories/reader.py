"""Reads token-level trajectories; needs pyarrow alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verl_llds.errors import RunFolderError
from verl_llds.trajectories.schema import FORMAT, INFO_KEY

_STEP_FILE = re.compile(r"step_(\d{8,})\.parquet")


def step_path(folder: Path, step: int) -> Path:
    """Return where a step's trajectories lie."""
    return folder / f"step_{step:08d}.parquet"


def list_steps(folder: Path) -> list[int]:
    """Return the recorded steps, ascending; none where there is no such folder."""
    if not folder.is_dir():
        return []
    found = (_STEP_FILE.fullmatch(entry.name) for entry in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


def read_step(folder: Path, step: int) -> list[dict[str, Any]]:
    """Return a step's trajectories as plain values, see `verl_llds.trajectories.schema.SCHEMA`.

    Raises:
        RunFolderError: the file is missing, broken, or of another format.
    """
    rows: list[dict[str, Any]] = _open(folder, step).read().to_pylist()
    return rows


def read_info(folder: Path, step: int) -> dict[str, Any]:
    """Return what `verl_llds.trajectories.rows.step_info` says of a step.

    Raises:
        RunFolderError: the file is missing, broken, or of another format.
    """
    return _info(_open(folder, step))


def _open(folder: Path, step: int) -> pq.ParquetFile:
    path = step_path(folder, step)
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise RunFolderError(
            f"cannot read the trajectories {path}: {error}; remove the file if it is broken"
        ) from error
    found = _info(file).get("format")
    if found != FORMAT:
        raise RunFolderError(
            f"{path} holds trajectories of format {found!r}, this version reads {FORMAT}: "
            "use the version of verl-llds that wrote it"
        )
    return file


def _info(file: pq.ParquetFile) -> dict[str, Any]:
    info: dict[str, Any] = json.loads((file.schema_arrow.metadata or {}).get(INFO_KEY, b"{}"))
    return info
