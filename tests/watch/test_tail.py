"""A file of metrics that is followed through everything that happens to such files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from metrics_file import row, write

from verl_llds.errors import RunFolderError
from verl_llds.watch.tail import RunTail


def settle(tail: RunTail) -> list[int]:
    while tail.poll():
        pass
    return list(tail.log.steps)


def test_rows_come_as_they_are_written(tmp_path: Path) -> None:
    tail = RunTail(tmp_path)
    assert settle(tail) == []
    assert tail.written_at is None
    write(tmp_path / "metrics.jsonl", 1, 2)
    assert settle(tail) == [1, 2]
    write(tmp_path / "metrics.jsonl", 3, mode="a")
    assert settle(tail) == [1, 2, 3]
    assert not tail.poll()
    assert tail.log.restarts == []
    assert tail.written_at == (tmp_path / "metrics.jsonl").stat().st_mtime


def test_half_a_row_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1)
    tail = RunTail(tmp_path)
    whole = row(2)
    with path.open("a") as lines:
        lines.write(whole[:20])
    assert settle(tail) == [1]
    with path.open("a") as lines:
        lines.write(whole[20:])
    assert settle(tail) == [1, 2]
    assert tail.log.num_broken == 0


def test_a_resumed_run_empties_the_file_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, *range(1, 16))
    tail = RunTail(tmp_path)
    settle(tail)
    write(path)
    assert settle(tail) == list(range(1, 16)), "what was read stays until the new start has a step"
    write(path, 11, mode="a")
    assert settle(tail) == list(range(1, 12))
    assert tail.log.restarts == [11]


def test_a_file_rewritten_between_two_looks_is_noticed_though_it_is_longer(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 2, 3)
    tail = RunTail(tmp_path)
    settle(tail)
    write(path, *range(1, 9), **{"actor/entropy": 0.5})
    assert settle(tail) == list(range(1, 9))
    assert tail.log.steps[1]["actor/entropy"] == 0.5
    assert tail.log.restarts == [1]


def test_a_rotated_file_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 2)
    tail = RunTail(tmp_path)
    settle(tail)
    with path.open("a") as still_open:
        os.replace(path, tmp_path / "metrics.jsonl.1")
        still_open.write(row(3))
        still_open.flush()
        assert settle(tail) == [1, 2, 3], "the run goes on writing to the file that was put aside"
        still_open.write(row(4))
    write(path, 5)
    assert settle(tail) == [1, 2, 3, 4, 5]


def test_earlier_starts_are_read_first(tmp_path: Path) -> None:
    write(tmp_path / "metrics.start1.jsonl", *range(1, 11))
    write(tmp_path / "metrics.jsonl", 6, 7, **{"actor/entropy": 0.5})
    os.utime(tmp_path / "metrics.start1.jsonl", (1, 1))
    tail = RunTail(tmp_path)
    assert settle(tail) == list(range(1, 8))
    assert "actor/entropy" not in tail.log.steps[5]
    assert tail.log.restarts == [6]


def test_a_rotated_file_is_no_new_start(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl.1", *range(1, 6))
    write(tmp_path / "metrics.jsonl", 6, 7, 8)
    for name in ("metrics.jsonl", "metrics.jsonl.1"):
        os.utime(tmp_path / name, (1, 1))
    tail = RunTail(tmp_path)
    assert settle(tail) == list(range(1, 9))
    os.replace(tmp_path / "metrics.jsonl.1", tmp_path / "metrics.jsonl.2")
    os.replace(tmp_path / "metrics.jsonl", tmp_path / "metrics.jsonl.1")
    write(tmp_path / "metrics.jsonl", 9)
    assert settle(tail) == list(range(1, 10))
    assert tail.log.restarts == []


def test_lines_that_are_no_rows_are_counted(tmp_path: Path) -> None:
    lines = [row(1), "\x00\x00\n", '{"step": "x", "data": {}}\n', "[" * 100_000 + "\n", row(2)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    tail = RunTail(tmp_path)
    assert settle(tail) == [1, 2]
    assert tail.log.num_broken == 3


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 1)
    write(tmp_path / "b.jsonl", 1)
    with pytest.raises(RunFolderError, match=r"several runs, .*a, .*b: give one of them"):
        RunTail(tmp_path).poll()
    assert settle(RunTail(tmp_path / "b.jsonl")) == [1]


def test_event_files_of_tensorboard_are_read_too(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    tail = RunTail(tmp_path)
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("critic/score/mean", 0.25, 1)
        writer.flush()
        assert settle(tail) == [1]
        writer.add_scalar("critic/score/mean", 0.5, 2)
        writer.flush()
        assert settle(tail) == [1, 2]
    assert tail.log.steps[2] == {"critic/score/mean": 0.5}
