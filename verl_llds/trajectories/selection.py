"""Which trajectories of a step are kept, and which steps stay when the folder is full."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest


def choose_rows(groups: Sequence[str], correct: Sequence[bool], max_rows: int) -> list[int]:
    """Return the positions of the rows to keep, ascending.

    Groups stay whole, unless one alone is larger than ``max_rows``. They are taken in turn from those that hold right
    and wrong trajectories, where siblings can be compared, and from the others, in the order they come in.

    Args:
        groups: of each row, siblings alike.
        correct: whether each row's trajectory is.
        max_rows: how many may be kept, at least 1.
    """
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    mixed = [rows for rows in members.values() if len({bool(correct[row]) for row in rows}) > 1]
    alike = [rows for rows in members.values() if len({bool(correct[row]) for row in rows}) == 1]
    chosen: list[int] = []
    for rows in chain.from_iterable(zip_longest(mixed, alike, fillvalue=[])):
        if len(chosen) + len(rows) <= max_rows:
            chosen += rows
        elif not chosen:
            chosen += rows[:max_rows]
    return sorted(chosen)


def step_to_drop(steps: Sequence[int]) -> int:
    """Return the step whose loss leaves the smallest gap, the oldest of equals; never the last one.

    The first stays, too, while there is another one. Dropped again and again as steps are added, those that are left
    lie evenly over the run.

    Args:
        steps: at least two, rising.
    """
    assert len(steps) > 1, "the last step stays"
    if len(steps) == 2:
        return steps[0]
    inner = range(1, len(steps) - 1)
    return steps[min(inner, key=lambda at: steps[at + 1] - steps[at - 1])]
