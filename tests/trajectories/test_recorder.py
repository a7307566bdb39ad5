"""What happens in the background: written in the end, and nothing there stops a training."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from token_batch import batch, context

from verl_llds.trajectories.reader import list_steps
from verl_llds.trajectories.recorder import TrajectoryRecorder
from verl_llds.trajectories.rows import step_table
from verl_llds.trajectories.store import TrajectoryStore


def recorder(folder: Path, last_step: int = 0, max_bytes: int = 1 << 20) -> TrajectoryRecorder:
    return TrajectoryRecorder(TrajectoryStore(folder, max_bytes), context(), last_step)


def test_close_waits_for_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at_work = recorder(tmp_path / "new")
    at_work.record(batch(1))
    at_work.close()
    assert list_steps(tmp_path / "new") == [1]
    assert capsys.readouterr().out == ""


def test_a_resumed_run_says_what_it_removes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (1, 2, 3):
        TrajectoryStore(tmp_path, 1 << 20).write(step, step_table(batch(step), context()))
    at_work = recorder(tmp_path, last_step=1)
    at_work.record(batch(2))
    at_work.close()
    assert list_steps(tmp_path) == [1, 2]
    assert "held 2 recorded steps after step 1" in capsys.readouterr().out


def test_a_full_disk_ends_the_recording_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at_work = recorder(tmp_path, max_bytes=10)
    for step in (1, 2):
        at_work.record(batch(step))
    at_work.close()
    # On a busy machine the second step may come while the first one is still waiting, which is said on its own.
    said = capsys.readouterr().out.splitlines()
    (line,) = [line for line in said if "is not recorded, since" not in line]
    assert line.startswith("verl-llds: no more trajectories are recorded, training goes on: OSError: step 1 takes")


def test_a_fault_of_ours_ends_the_recording_with_its_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    at_work = recorder(tmp_path)
    at_work.record(object())  # type: ignore[arg-type]
    at_work.close()
    assert "training goes on: AttributeError" in capsys.readouterr().out
    assert "Traceback" in caplog.text


def test_a_slow_disk_costs_steps_not_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()
    write = TrajectoryStore.write

    def slowly(self: TrajectoryStore, *args: Any) -> list[int]:
        assert may_write.wait(30)
        return write(self, *args)

    monkeypatch.setattr(TrajectoryStore, "write", slowly)
    at_work = recorder(tmp_path)
    for step in range(1, 8):
        at_work.record(batch(step))
    may_write.set()
    at_work.close()
    assert 1 <= len(list_steps(tmp_path)) <= 3
    assert capsys.readouterr().out.count("is written more slowly") == 1


def test_thinning_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TrajectoryStore(tmp_path, 1 << 20).write(1, step_table(batch(1), context()))
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    at_work = recorder(tmp_path, last_step=1, max_bytes=int(2.5 * size))
    for step in range(2, 8):
        at_work._write(batch(step))
    at_work.close()
    assert capsys.readouterr().out.count("is full (diagnostics.trajectories.max_bytes") == 1
