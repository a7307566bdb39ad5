"""Metrics of a step's trajectories, as functions of plain records."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from verl_llds.errors import RetrievalError
from verl_llds.search.settings import SearchConfig
from verl_llds.search.trajectory import EpisodeStatus

_ANSWERED = (EpisodeStatus.ANSWERED, EpisodeStatus.ANSWERED_FORCED)


def search_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return ``search/*`` for one step.

    Args:
        rows: one record per trajectory: ``status``, ``num_searches`` (answered with passages), ``num_asked``
            (searches the policy wrote), ``num_invalid``, ``search_s`` (seconds of each search), ``num_tokens`` and
            ``num_policy`` (response tokens in all and sampled).

    Returns:
        Shares of trajectories by status, means per question, and search latencies in seconds.
    """
    assert rows, "a step has trajectories"
    total = len(rows)
    statuses = Counter(row["status"] for row in rows)
    latencies = sorted(seconds for row in rows for seconds in row["search_s"])
    metrics = {f"search/status/{status.value}": statuses[status.value] / total for status in EpisodeStatus}
    metrics["search/answer_share"] = sum(metrics[f"search/status/{status.value}"] for status in _ANSWERED)
    metrics["search/valid_searches"] = statistics.fmean(row["num_searches"] for row in rows)
    asked = sum(row["num_asked"] for row in rows)
    if asked:
        metrics["search/valid_search_ratio"] = sum(row["num_searches"] for row in rows) / asked
    metrics["search/invalid_actions"] = statistics.fmean(row["num_invalid"] for row in rows)
    metrics["search/policy_tokens"] = statistics.fmean(row["num_policy"] for row in rows)
    metrics["search/observation_tokens"] = statistics.fmean(row["num_tokens"] - row["num_policy"] for row in rows)
    if latencies:
        metrics["search/latency_s/p50"] = _percentile(latencies, 0.50)
        metrics["search/latency_s/p99"] = _percentile(latencies, 0.99)
    return metrics


def check_failures(rows: Sequence[Mapping[str, Any]], settings: SearchConfig) -> None:
    """Stop a run whose searches fail.

    Raises:
        RetrievalError: if more than ``max_failed_ratio`` of the trajectories ended with a failed search.
    """
    failed = sum(row["status"] == EpisodeStatus.RETRIEVAL_FAILED.value for row in rows)
    if failed > settings.max_failed_ratio * len(rows):
        raise RetrievalError(
            f"{failed} of {len(rows)} trajectories of this step ended with a failed search at {settings.url} "
            f"(search.max_failed_ratio is {settings.max_failed_ratio}): check that the retriever still runs "
            "and keeps up, then start again; training resumes from the last checkpoint"
        )


def _percentile(ordered: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile: the smallest value that ``share`` of the values do not exceed."""
    return ordered[math.ceil(share * len(ordered)) - 1]
