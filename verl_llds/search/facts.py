"""What a dataset row asks and what a trajectory was, as plain values for metrics and dumps."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Any

from verl_llds.search.tokens import Tokenizer
from verl_llds.search.trajectory import Trajectory


def row_targets(row: Mapping[str, Any]) -> list[str]:
    """Return the accepted answers of a row in verl's schema: one, or several."""
    targets = row["reward_model"]["ground_truth"]["target"]
    return [targets] if isinstance(targets, str) else list(targets)


def trajectory_facts(trajectory: Trajectory) -> dict[str, Any]:
    """Return what metrics and dumps say of a trajectory, as plain values."""
    num_policy = sum(trajectory.response_mask)
    return {
        "status": trajectory.status.value,
        "error": trajectory.error,
        "num_searches": trajectory.num_searches,
        "first_documents": trajectory.first_documents,
        "num_policy": num_policy,
        "num_observation": len(trajectory.response_mask) - num_policy,
        "num_answer": sum(trajectory.answer_mask),
        "turns": [turn.summary() for turn in trajectory.turns],
    }


def turn_records(trajectory: Trajectory, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Return the turns as plain values for verl's dumps, which hold the response as text.

    ``num_chars`` and ``num_observation_chars`` say where a turn lies in the response as verl decodes it: without
    special tokens.
    """

    lengths = _piece_lengths(trajectory, tokenizer)
    return [
        {**turn.summary(), "num_chars": lengths[2 * number], "num_observation_chars": lengths[2 * number + 1]}
        for number, turn in enumerate(trajectory.turns)
    ]


def _piece_lengths(trajectory: Trajectory, tokenizer: Tokenizer) -> list[int]:
    """Return the characters of each turn and of the reply to it, in turns, within the decoded response."""
    sizes = [size for turn in trajectory.turns for size in (turn.num_tokens, turn.num_observation_tokens)]
    ends = list(accumulate(sizes, initial=0))

    def decode(first: int, end: int) -> str:
        return tokenizer.decode(trajectory.response_ids[first:end], skip_special_tokens=True) if end > first else ""

    pieces = [decode(first, end) for first, end in pairwise(ends)]
    if "".join(pieces) == decode(0, ends[-1]):
        return [len(piece) for piece in pieces]
    # The text of some ids depends on those before: decoded from the beginning each time, which takes longer.
    return [end - first for first, end in pairwise(len(decode(0, end)) for end in ends)]
