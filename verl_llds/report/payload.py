"""Trajectories for the page: a small index that is read at once, and chunks that are read when one is opened."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from verl_llds.report.embed import packed_json, rounded
from verl_llds.report.trajectories import Trajectory, Turn

CHUNK = 32
"""Trajectories that are compressed together: siblings lie side by side, and opening one takes milliseconds."""

_LISTED = ("split", "step", "reward", "correct", "num_searches")
"""Fields of the index taken as they are; the others are numbered."""
_INDEXED = (*_LISTED, "group", "source", "question", "status")


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """What a page carries of its trajectories, compressed."""

    num: int
    """Trajectories."""
    index: str
    """By column, what the list shows and filters."""
    chunks: tuple[str, ...]
    """`CHUNK` trajectories each, in the index's order."""


def payload(
    trajectories: Sequence[tuple[int, Trajectory]], runs: Sequence[str], num_found: int | None = None
) -> Payload:
    """Compress trajectories.

    Args:
        trajectories: each with the number of its run.
        runs: their names.
        num_found: how many the runs left, for a note where the page does not show all of them; None if it does.
    """
    left_out = (num_found or 0) > len(trajectories)
    note = f"{num_found:,} were found: --max-trajectories sets how many the file holds" if left_out else ""
    bodies = [_body(trajectory) for _, trajectory in trajectories]
    return Payload(
        num=len(bodies),
        index=packed_json({**index(trajectories), "runs": runs, "note": note}),
        chunks=tuple(packed_json(bodies[start : start + CHUNK]) for start in range(0, len(bodies), CHUNK)),
    )


def index(trajectories: Sequence[tuple[int, Trajectory]]) -> dict[str, Any]:
    """Return the list's columns.

    Returns:
        ``names``: distinct texts by column; ``columns``: one entry a trajectory, the texts by their number, and
        ``sibling``, the place of the sibling of the other outcome that it is most alike, and ``shared``, the length
        in characters of what the responses of both have in common from the start, or None; ``chunk``: trajectories a
        chunk.
    """
    rows = [trajectory for _, trajectory in trajectories]
    groups = [(run, one.split.value, one.step, one.group) for run, one in trajectories]
    columns: dict[str, Any] = {name: [_plain(getattr(row, name)) for row in rows] for name in _LISTED}
    columns["run"] = [run for run, _ in trajectories]
    columns["tokens"] = [row.has_tokens for row in rows]
    columns["group"] = _numbered(groups)[1]
    siblings = closest_siblings(groups, rows)
    columns["shared"] = [one and one[0] for one in siblings]
    columns["sibling"] = [one and one[1] for one in siblings]
    names = {}
    for name in ("source", "question", "status"):
        names[name], columns[name] = _numbered([getattr(row, name) for row in rows])
    return {"chunk": CHUNK, "names": names, "columns": columns}


def closest_siblings(groups: Sequence[Any], rows: Sequence[Trajectory]) -> list[tuple[int, int] | None]:
    """Return the most similar sibling of the other outcome of each trajectory; None where there is no such sibling.

    Returns:
        How many characters both responses share from the start, and the sibling's place. Of several that share as
        much it is one with log-probabilities if there is one, else the first.
    """
    members: dict[Any, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    responses = [row.response for row in rows]

    def shared(place: int, other: int) -> int:
        # Characters are what is meant here.
        return len(os.path.commonprefix([responses[place], responses[other]]))  # noqa: RUF071

    found: list[tuple[int, int] | None] = []
    for place, group in enumerate(groups):
        others = [other for other in members[group] if rows[other].correct != rows[place].correct]
        ranked = [(shared(place, other), rows[other].has_tokens, -other) for other in others]
        best = max(ranked, default=None)
        found.append(None if best is None else (best[0], -best[2]))
    return found


def _body(trajectory: Trajectory) -> Mapping[str, Any]:
    names = (entry.name for entry in fields(trajectory))
    body = {name: _plain(getattr(trajectory, name)) for name in names if name not in _INDEXED}
    return {**body, "turns": [_turn(turn) for turn in trajectory.turns]}


def _turn(turn: Turn) -> Mapping[str, Any]:
    """Return a turn without what is empty, or can be told from the rest of it."""
    kept = {entry.name: getattr(turn, entry.name) for entry in fields(turn)}
    kept = {name: value for name, value in kept.items() if value not in ("", None, (), [], False)}
    if turn.tokens is None:
        return kept
    kept.pop("text", None)
    return {**kept, "tokens": {entry.name: getattr(turn.tokens, entry.name) for entry in fields(turn.tokens)}}


def _numbered(values: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """Return the distinct values in order, and each value's number."""
    numbers: dict[Any, int] = {}
    found = [numbers.setdefault(value, len(numbers)) for value in values]
    return list(numbers), found


def _plain(value: Any) -> Any:
    return rounded(value) if isinstance(value, float) else getattr(value, "value", value)
