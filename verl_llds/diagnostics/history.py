"""The metrics of a run's earlier starts, which verl's file logger would overwrite when the run resumes."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

from omegaconf import DictConfig


def keep_earlier_metrics(trainer: DictConfig) -> Path | None:
    """Put the file aside that verl's file logger is about to empty, and return where it is now; None without one.

    ``metrics.jsonl`` becomes ``metrics.start1.jsonl``, the next time ``metrics.start2.jsonl``, which
    `verl_llds.report.run_folder.read_run` joins again.

    Args:
        trainer: the node ``trainer`` of the run.
    """
    logger = trainer.logger
    path = file_logger_path(trainer.project_name, trainer.experiment_name)
    if "file" not in ([logger] if isinstance(logger, str) else logger) or not path.is_file() or not path.stat().st_size:
        return None
    aside = next(
        free
        for number in count(1)
        if not (free := path.with_name(f"{path.name.removesuffix('.jsonl')}.start{number}.jsonl")).exists()
    )
    os.replace(path, aside)
    return aside


def file_logger_path(project: str, experiment: str) -> Path:
    """Return where verl's file logger writes, by its own rules."""
    named = os.getenv("VERL_FILE_LOGGER_PATH")
    if named is not None:
        return Path(named)
    return Path(os.getenv("VERL_FILE_LOGGER_ROOT", ".")).expanduser() / project / f"{experiment}.jsonl"
