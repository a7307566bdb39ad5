"""What a dataset row asks and what a trajectory was, as plain values for metrics and dumps."""

from __future__ import annotations

from collections.abc import Mapping
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

    def num_chars(num_ids: int) -> int:
        # Decoded from the beginning: the text of some ids depends on those before.
        return len(tokenizer.decode(trajectory.response_ids[:num_ids], skip_special_tokens=True))

    records = []
    place = start = 0
    for turn in trajectory.turns:
        place += turn.num_tokens
        middle = num_chars(place)
        place += turn.num_observation_tokens
        end = num_chars(place) if turn.num_observation_tokens else middle
        records.append({**turn.summary(), "num_chars": middle - start, "num_observation_chars": end - middle})
        start = end
    return records
