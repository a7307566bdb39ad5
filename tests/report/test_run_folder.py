"""What a run left behind, found in folders as people have them."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_llds.errors import RunFolderError
from verl_llds.report.metrics_log import MetricsLog, parse_line, read_lines
from verl_llds.report.run_folder import read_run


def write(path: Path, steps: range, **values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"step": step, "data": {"reward": step, **values}}) + "\n" for step in steps))
    return path


def test_a_whole_run(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", range(1, 4))
    for folder, extra in (("rollouts", {}), ("evaluations", {"reward": 1.0})):
        for step in (2, 10):
            path = tmp_path / folder / f"{step}.jsonl"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"input": "q", "output": "a", "step": step, **extra}) + "\n")
    recorded = tmp_path / "checkpoints" / "trajectories"
    recorded.mkdir(parents=True)
    (recorded / "step_00000001.parquet").touch()
    buried = tmp_path / "checkpoints" / "global_step_3" / "actor"
    buried.mkdir(parents=True)
    write(buried / "other.jsonl", range(1, 3))
    run = read_run(tmp_path)
    assert run.name == tmp_path.name
    assert list(run.metrics) == [1, 2, 3]
    assert run.series("reward") == ([1, 2, 3], [1, 2, 3])
    assert run.series("nothing") == ([], [])
    assert list(run.rollouts) == list(run.validations) == [2, 10]
    assert run.rollouts[10] == tmp_path / "rollouts" / "10.jsonl"
    assert run.trajectories == recorded


def test_a_file_alone(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", range(1, 3))
    run = read_run(write(tmp_path / "a.jsonl", range(1, 4)))
    assert (run.name, list(run.metrics), run.trajectories) == ("a", [1, 2, 3], None)


def test_starts_of_one_run_are_joined(tmp_path: Path) -> None:
    first = write(tmp_path / "metrics.start1.jsonl", range(1, 9), start=1)
    rotated = write(tmp_path / "metrics.jsonl.1", range(5, 8), start=2)
    last = write(tmp_path / "metrics.jsonl", range(7, 10), start=3)
    for age, path in enumerate((last, rotated, first)):
        os.utime(path, (1000 - age, 1000 - age))
    assert read_run(tmp_path).series("start") == (list(range(1, 10)), [1] * 4 + [2] * 2 + [3] * 3)


@pytest.mark.parametrize("age", [0, 1, -1])
def test_pieces_are_in_the_order_of_their_names_whatever_their_times_say(age: int, tmp_path: Path) -> None:
    """As after an archive was unpacked: all times are equal, or nonsense."""
    names = ["metrics.start1.jsonl", "metrics.start2.jsonl", "metrics.start10.jsonl", "metrics.jsonl"]
    rotated = ["log.jsonl.10", "log.jsonl.2", "log.jsonl.1", "log.jsonl"]
    for folder, order in (("starts", names), ("rotated", rotated)):
        for number, name in enumerate(order):
            path = write(tmp_path / folder / name, range(1 + 3 * number, 8 + 3 * number), piece=number)
            os.utime(path, (1000 + age * number, 1000 + age * number))
        steps, pieces = read_run(tmp_path / folder).series("piece")
        assert steps == list(range(1, 17))
        assert pieces == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 7


def test_what_was_put_aside_in_two_ways_is_ordered_by_age(tmp_path: Path) -> None:
    ages = {"m.start1.jsonl": 2, "m.start2.jsonl": 4, "m.jsonl.2": 1, "m.jsonl.1": 3, "m.jsonl": 0}
    for number, name in enumerate(sorted(ages, key=lambda name: ages[name] or 9)):
        path = write(tmp_path / name, range(1 + 3 * number, 8 + 3 * number), piece=number)
        os.utime(path, (ages[name], ages[name]))
    assert read_run(tmp_path).series("piece")[1] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 7


def test_links_to_nothing_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", range(1, 4))
    for name in ("old.jsonl", "7.jsonl", "events.out.tfevents.1"):
        (tmp_path / name).symlink_to(tmp_path / "nonexistent")
    run = read_run(tmp_path)
    assert list(run.metrics) == [1, 2, 3]
    assert run.vanished == [tmp_path / name for name in ("7.jsonl", "events.out.tfevents.1", "old.jsonl")]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", range(1, 4))
    loop = tmp_path / "loop.jsonl"
    loop.symlink_to(loop)
    with pytest.raises(RunFolderError, match=f"cannot read {re.escape(str(loop))}: Too many levels"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    "line", ["[" * 100_000, f'{{"step": 2, "data": {{"x": {10**400}}}}}', f'{{"step": {10**400}, "data": {{}}}}']
)
def test_a_line_that_python_cannot_hold_is_a_broken_one(line: str, tmp_path: Path) -> None:
    rows = [json.dumps({"step": step, "data": {"reward": step}}) for step in (1, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join((rows[0], line, rows[1], "")))
    run = read_run(tmp_path)
    assert (list(run.metrics), run.num_broken) == ([1, 3], 1)


def test_a_deep_line_at_the_beginning_of_another_file_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", range(1, 4))
    (tmp_path / "deep.jsonl").write_text("[" * 100_000)
    assert list(read_run(tmp_path).metrics) == [1, 2, 3]


@pytest.mark.parametrize("names", [("a.jsonl", "b.jsonl"), ("lr0.1.jsonl", "lr0.2.jsonl"), ("x/m.jsonl", "y/m.jsonl")])
def test_several_runs_are_refused_by_name(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        write(tmp_path / name, range(1, 3))
    first, second = (re.escape(name.removesuffix(".jsonl")) for name in names)
    with pytest.raises(RunFolderError, match=rf"several runs, \S*{first}, \S*{second}: give one of them"):
        read_run(tmp_path)


def test_what_is_not_there_says_where_it_would_be(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "no", "there is no"), (tmp_path, "holds no metrics of a run")):
        with pytest.raises(RunFolderError, match=rf"{message}.*VERL_FILE_LOGGER_PATH"):
            read_run(path)
    (tmp_path / "metrics.jsonl").write_text("no json\n")
    with pytest.raises(RunFolderError, match="holds no metrics"):
        read_run(tmp_path / "metrics.jsonl")


def test_broken_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.jsonl", range(1, 4))
    path.write_text(path.read_text() + '\x00\x00\n[1]\n{"step": true, "data": {}}\n{"header": 1}\n{"step": 9, "da')
    run = read_run(tmp_path)
    assert (list(run.metrics), run.num_broken) == ([1, 2, 3], 3)


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    line = '{"step": 2, "data": {"nan": null, "flag": true, "text": "x", "list": [1], "big": 1e999}}'
    parsed = parse_line(line)
    assert parsed is not None
    step, values = parsed
    assert step == 2
    assert math.isnan(values.pop("nan"))
    assert values == {"flag": 1.0, "big": math.inf}


def test_a_step_in_two_rows_is_one_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "data": {"val": 1}}\n{"step": 1, "data": {"a": 1}}\n{"step": 1, "data": {"b": 2}}')
    assert read_lines([path]).steps == {0: {"val": 1}, 1: {"a": 1, "b": 2}}


def test_event_files(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    folder = tmp_path / "tensorboard_log" / "project" / "experiment"
    for start, steps in enumerate((range(1, 6), range(4, 8))):
        with SummaryWriter(str(folder), filename_suffix=f".{start}") as writer:
            for step in steps:
                writer.add_scalar("reward", start, step)
        for path in folder.glob(f"*.{start}"):
            # Names begin with the second in which they were made.
            path.rename(folder / f"events.out.tfevents.{start}")
    run = read_run(tmp_path)
    assert run.series("reward") == ([1, 2, 3, 4, 5, 6, 7], [0, 0, 0, 1, 1, 1, 1])
    assert read_run(folder / "events.out.tfevents.0").series("reward")[0] == [1, 2, 3, 4, 5]


@given(st.lists(st.lists(st.integers(0, 30), min_size=1, unique=True).map(sorted), max_size=6))
def test_the_latest_start_wins_from_its_first_step_on(pieces: list[list[int]]) -> None:
    log = MetricsLog()
    for number, steps in enumerate(pieces):
        log.begin_piece()
        for step in steps:
            log.add(step, {"piece": number})
    expected: dict[int, int] = {}
    for number, steps in enumerate(pieces):
        expected = {step: piece for step, piece in expected.items() if step < steps[0]} | dict.fromkeys(steps, number)
    assert {step: values["piece"] for step, values in log.steps.items()} == expected
    assert list(log.steps) == sorted(log.steps)
    known: set[int] = set()
    again = []
    for steps in pieces:
        if known and steps[0] <= max(known):
            again.append(steps[0])
        known = {step for step in known if step < steps[0]} | set(steps)
    assert log.restarts == again
