"""The folder of steps: whole files, a bound on all of them, no step twice."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_batch import batch, context

from verl_llds.trajectories.reader import list_steps, step_path
from verl_llds.trajectories.rows import step_table
from verl_llds.trajectories.selection import choose_rows, step_to_drop
from verl_llds.trajectories.store import TrajectoryStore


def size_of_one(folder: Path) -> int:
    TrajectoryStore(folder, 1 << 20).write(1, step_table(batch(1), context()))
    return step_path(folder, 1).stat().st_size


def test_the_folder_never_outgrows_its_bound(tmp_path: Path) -> None:
    bound = int(5.5 * size_of_one(tmp_path))
    store = TrajectoryStore(tmp_path, bound)
    for step in range(10, 410, 10):
        store.write(step, step_table(batch(step), context()))
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= bound
        assert list_steps(tmp_path)[-1] == step
    left = list_steps(tmp_path)
    assert left[0] == 1
    assert len(left) >= 4
    assert max(after - before for before, after in pairwise(left)) <= 200


def test_a_step_larger_than_all_may_be_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"step 10 takes \d+ bytes, more than diagnostics.trajectories.max_bytes=100"):
        TrajectoryStore(tmp_path, 100).write(10, step_table(batch(), context()))
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_drops_what_it_does_again(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path, 1 << 20)
    for step in (1, 10, 20, 30):
        store.write(step, step_table(batch(step), context()))
    (tmp_path / "step_00000040.parquet.tmp").write_bytes(b"half")
    assert store.drop_after(15) == [20, 30]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["step_00000001.parquet", "step_00000010.parquet"]
    store.write(10, step_table(batch(10), context()))
    assert list_steps(tmp_path) == [1, 10]


@given(st.sets(st.integers(1, 10_000), min_size=2))
def test_the_last_step_stays_and_the_first_while_there_are_others(steps: set[int]) -> None:
    rising = sorted(steps)
    dropped = step_to_drop(rising)
    assert dropped in steps
    assert dropped != rising[-1]
    assert len(rising) == 2 or dropped != rising[0]


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 45),
)
def test_groups_stay_whole(rows: list[tuple[str, bool]], max_rows: int) -> None:
    groups = [group for group, _ in rows]
    chosen = choose_rows(groups, [correct for _, correct in rows], max_rows)
    assert chosen == sorted(set(chosen))
    assert 1 <= len(chosen) <= max_rows
    kept = {group: sum(groups[row] == group for row in chosen) for group in {groups[row] for row in chosen}}
    assert all(count == groups.count(group) for group, count in kept.items()) or len(kept) == 1
    assert len(rows) > max_rows or len(chosen) == len(rows)


def test_mixed_groups_and_others_take_turns() -> None:
    groups = [name for name in "abcdef" for _ in range(2)]
    correct = [True, True, True, False, False, False, True, False, True, False, False, True]
    chosen = choose_rows(groups, correct, 8)
    # b, d, e, f hold both kinds; a and c do not.
    assert "".join(groups[row] for row in chosen) == "aabbccdd"
