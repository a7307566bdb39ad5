"""Runs as files: one JSONL a run, a header with its settings and one row a step in the shape of verl's file logger."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from lab.arms import RunSettings
from lab.cold_start import fingerprint
from lab.trainer import Trainer
from verl_llds.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One cell of the grid."""

    preset: str
    """Where the arms are compared."""
    arm: str
    """What is special about it."""
    seed: int
    """Seed of questions, samples and mini-batches."""
    settings: RunSettings
    """What the first two stand for."""

    def path(self, out: Path) -> Path:
        """Return where the finished run lies."""
        return out / self.preset / f"{self.arm}-seed{self.seed}.jsonl"

    def header(self) -> dict[str, Any]:
        """Return everything the run depends on, of JSON types."""
        header = {
            "preset": self.preset,
            "arm": self.arm,
            "seed": self.seed,
            "settings": asdict(self.settings),
            "policy": fingerprint(self.settings.cold_start),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
        return dict(json.loads(json.dumps(header)))


def is_finished(run: Run, out: Path) -> bool:
    """Return whether the run is there.

    Raises:
        ConfigError: a run of that name is there, but with other settings.
    """
    path = run.path(out)
    if not path.exists():
        return False
    with path.open() as lines:
        found = json.loads(next(lines))["header"]
    if found["settings"] != run.header()["settings"]:
        raise ConfigError(f"{path} was made with other settings: give another --out, or move the file away")
    return True


def carry_out(run: Run, out: Path, policies: Path) -> Iterator[Mapping[str, float]]:
    """Train, write the run line by line, and yield the metrics of every step.

    Until it is finished its name ends in the process id and ``.part``, so that two processes never write one file; a
    run that was interrupted is done again from its start.
    """
    path = run.path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".jsonl.{os.getpid()}.part")
    with unfinished.open("w") as file:
        _write(file, {"header": run.header()})
        for step, row in enumerate(Trainer(run.settings, run.seed, policies).rows(), start=1):
            _write(file, {"step": step, "data": row})
            yield row
    unfinished.replace(path)


def _write(file: Any, row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row) + "\n")
    file.flush()
