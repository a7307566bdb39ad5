"""A resumed run keeps what its earlier starts have logged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from verl.utils.tracking import FileLogger

from verl_llds.diagnostics.history import keep_earlier_metrics
from verl_llds.report.run_folder import read_run


def node(logger: Any = ("console", "file")) -> Any:
    return OmegaConf.create(
        {"logger": logger if isinstance(logger, str) else list(logger), "project_name": "p", "experiment_name": "e.v2"}
    )


@pytest.mark.parametrize(
    "environment", [{}, {"VERL_FILE_LOGGER_ROOT": "root"}, {"VERL_FILE_LOGGER_PATH": "here.jsonl"}]
)
def test_three_starts_are_one_run(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("VERL_FILE_LOGGER_ROOT", "VERL_FILE_LOGGER_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for start, steps in enumerate((range(1, 6), range(4, 8), range(6, 9))):
        kept = keep_earlier_metrics(node())
        assert (kept is None) == (start == 0)
        logger = FileLogger("p", "e.v2")
        for step in steps:
            logger.log({"start": start}, step)
        logger.finish()
        # Starts follow each other faster here than a file system's clock may tick.
        os.utime(logger.filepath, (start, start))
    assert read_run(tmp_path).series("start") == (list(range(1, 9)), [0, 0, 0, 1, 1, 2, 2, 2])


def test_nothing_is_moved_without_a_file_logger_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.jsonl"
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(path))
    assert keep_earlier_metrics(node()) is None
    path.write_text("")
    assert keep_earlier_metrics(node()) is None
    path.write_text("row")
    assert keep_earlier_metrics(node("console")) is None
    assert keep_earlier_metrics(node(["wandb"])) is None
    assert path.read_text() == "row"
    assert keep_earlier_metrics(node("file")) == tmp_path / "m.start1.jsonl"
