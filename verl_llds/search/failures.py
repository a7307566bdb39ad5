"""When too many trajectories of a step failed to train on the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from verl_llds.errors import RolloutError
from verl_llds.search.settings import OnFailure, SearchConfig
from verl_llds.search.trajectory import EpisodeStatus


def has_failed(row: Mapping[str, Any]) -> bool:
    """Return whether the environment failed a trajectory, whose reward then says nothing about the policy."""
    return EpisodeStatus(row["status"]).is_failure


def failure_ratio(rows: Sequence[Mapping[str, Any]], num_expected: int) -> float:
    """Return the share of the expected trajectories that failed or never came."""
    total = max(num_expected, len(rows))
    return (total - len(rows) + sum(map(has_failed, rows))) / total if total else 0.0


def check_failures(rows: Sequence[Mapping[str, Any]], num_expected: int, settings: SearchConfig, where: str) -> None:
    """Stop a run whose trajectories fail.

    Args:
        rows: one record per trajectory: ``status`` and ``error``.
        num_expected: trajectories that were asked for; verl pads those that were lost with masked rows.
        settings: ``max_failure_ratio`` and ``on_failure``.
        where: of what they are, for the message: a step or an evaluation.

    Raises:
        RolloutError: if more than ``max_failure_ratio`` of them failed or were lost; under ``on_failure=raise``, if
            any was; under ``on_failure=mask``, in any case if all were, since nothing is left to train on.
    """
    ratio = failure_ratio(rows, num_expected)
    setting = f"search.max_failure_ratio is {settings.max_failure_ratio}"
    is_too_many = ratio > settings.max_failure_ratio
    if settings.on_failure is OnFailure.RAISE:
        setting = "search.on_failure is raise"
        is_too_many = ratio > 0
    elif settings.on_failure is OnFailure.MASK and ratio == 1:
        setting = "nothing is left to train on"
        is_too_many = True
    if not is_too_many:
        return
    total = max(num_expected, len(rows))
    raise RolloutError(
        f"{round(ratio * total)} of {total} trajectories of {where} failed ({setting}): "
        f"{_causes(rows, total - len(rows))}. Retriever: {', '.join(settings.urls)}. Check that it runs and keeps up, "
        "then start the same command again"
    )


def _causes(rows: Sequence[Mapping[str, Any]], num_lost: int) -> str:
    failed = [row for row in rows if has_failed(row)]
    parts = []
    for status, count in Counter(row["status"] for row in failed).most_common():
        errors = Counter(row["error"] for row in failed if row["status"] == status)
        text, quoted = errors.most_common(1)[0]
        parts.append(f"{count} {status}, {quoted} of them with {text!r}")
    if num_lost:
        parts.append(f"{num_lost} lost by verl, whose log has their errors")
    return "; ".join(parts)
