"""What a dataset row asks and what a trajectory was, as plain values for metrics and dumps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
