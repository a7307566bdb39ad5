"""Joining in place: the same bytes, never more room than parts and a block, and kill -9 at any line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import in_a_small_process, killed

from verl_llds.data import join
from verl_llds.data.join import join_parts, joining_path, plan_path
from verl_llds.errors import DataError


def silent(num_bytes: int) -> None:
    pass


def write_parts(folder: Path, contents: list[bytes]) -> list[Path]:
    folder.mkdir(parents=True)
    paths = [folder / f"part_{n}" for n in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


@settings(deadline=None)
@given(contents=st.lists(st.binary(max_size=40), min_size=1, max_size=4), block=st.integers(1, 50))
def test_the_whole_is_the_parts_in_order(
    contents: list[bytes], block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("join")
    done: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(join, "BLOCK_BYTES", block)
        join_parts(write_parts(folder / "in", contents), folder / "whole", done.append)
    assert (folder / "whole").read_bytes() == b"".join(contents)
    assert sum(done) == len(b"".join(contents))
    assert sorted(path.name for path in folder.rglob("*")) == ["in", "whole"]


CONTENTS = [b"abcdef", b"ijklmno", b"", b"tuvwx"]


def replace_within_a_folder(source: Path, target: Path) -> None:
    """``os.replace`` where every folder is a file system."""
    if Path(source).parent != Path(target).parent:
        raise OSError(18, "Invalid cross-device link")
    os.rename(source, target)


def kill_at_any_line(folder: Path, renames: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(join, "BLOCK_BYTES", 4)
        if not renames:
            patch.setattr(os, "replace", replace_within_a_folder)
        line = 1
        while kill_at(folder / str(line), line):
            line += 1
    assert line > 60


def kill_at(folder: Path, line: int) -> bool:
    parts = write_parts(folder / "in", CONTENTS)
    target = folder / "whole"
    was_killed = killed(lambda: join_parts(parts, target, silent), line)
    if not target.exists():
        join_parts(parts, target, silent)
    assert target.read_bytes() == b"".join(CONTENTS), f"killed at line {line}"
    assert not joining_path(target).exists()
    return was_killed


@pytest.mark.parametrize("renames", [True, False], ids=["one file system", "two file systems"])
def test_it_goes_on_after_kill_9_at_any_line(renames: bool, tmp_path: Path) -> None:
    in_a_small_process("test_data_join", f"kill_at_any_line({tmp_path!r}, {renames})")


def kill_again_and_again(folder: Path) -> None:
    parts = write_parts(folder / "in", CONTENTS)
    target = folder / "whole"
    calls = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(join, "BLOCK_BYTES", 1)
        while not target.exists():
            killed(lambda: join_parts(parts, target, silent), 120)
            calls += 1
            assert calls < 100
    assert calls > 3
    assert target.read_bytes() == b"".join(CONTENTS)


def test_it_comes_to_its_end_though_it_is_killed_again_and_again(tmp_path: Path) -> None:
    in_a_small_process("test_data_join", f"kill_again_and_again({tmp_path!r})")


def test_parts_and_whole_never_take_more_than_a_block_on_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block, size = 1 << 20, 8 << 20
    monkeypatch.setattr(join, "BLOCK_BYTES", block)
    parts = write_parts(tmp_path / "in", [os.urandom(size) for _ in range(3)])
    taken: list[int] = []
    fsync = os.fsync

    def measure(descriptor: int) -> None:
        fsync(descriptor)
        taken.append(sum(512 * path.stat().st_blocks for path in tmp_path.rglob("*") if path.is_file()))

    monkeypatch.setattr(os, "fsync", measure)
    join_parts(parts, tmp_path / "whole", silent)
    assert len(taken) > 16
    assert max(taken) <= 3 * size + block + (1 << 16)


@pytest.mark.parametrize("change", ["gone", "grown", "whole gone"])
def test_parts_that_changed_in_between_are_refused(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join, "BLOCK_BYTES", 4)
    parts = write_parts(tmp_path / "in", CONTENTS)
    target = tmp_path / "whole"

    calls = 0

    def stop(num_bytes: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        join_parts(parts, target, stop)
    assert plan_path(target).exists()
    if change == "grown":
        parts[1].write_bytes(b"x" * 100)
    elif change == "whole gone":
        joining_path(target).unlink()
    else:
        joining_path(target).unlink()
        parts[3].unlink()
    with pytest.raises(DataError, match=r"fetch them again|begin with whole parts"):
        join_parts(parts, target, silent)
