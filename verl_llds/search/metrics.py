"""Metrics of a step's trajectories, as functions of plain records."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from verl_llds.search.failures import failure_ratio
from verl_llds.search.protocol import ActionKind
from verl_llds.search.tools import SearchTool
from verl_llds.search.trajectory import EpisodeStatus, TurnStatus

_CALLED = (TurnStatus.RESULT.value, TurnStatus.FAILED.value)


def search_metrics(rows: Sequence[Mapping[str, Any]], num_expected: int) -> dict[str, float]:
    """Return ``search/*`` for one step.

    Args:
        rows: one record per trajectory: ``status``, ``turns`` (records of
            `verl_llds.search.trajectory.TurnRecord.summary`), ``num_searches`` (answered with passages), and tokens by
            kind: ``num_policy``, ``num_observation``, ``num_answer``, ``num_context`` and ``num_cached`` (read by the
            engine, and of these found in its prefix cache).
        num_expected: trajectories that were asked for.

    Returns:
        Counts and shares of trajectories by status, means per question, and search latencies in seconds. What has
        nothing to be measured on is left out.
    """
    assert rows, "a step has trajectories"
    turns = [turn for row in rows for turn in row["turns"]]
    return {
        **_endings(rows, num_expected),
        **_actions(rows, turns),
        **_requests(turns),
        **_tokens(rows),
    }


def _endings(rows: Sequence[Mapping[str, Any]], num_expected: int) -> dict[str, float]:
    total = len(rows)
    statuses = Counter(row["status"] for row in rows)
    metrics = {f"search/status/{status.value}": statuses[status.value] / total for status in EpisodeStatus}
    metrics |= {f"search/status_count/{status.value}": float(statuses[status.value]) for status in EpisodeStatus}
    metrics["search/answer_share"] = _share(EpisodeStatus(row["status"]).is_answered for row in rows)
    metrics["search/failure_ratio"] = failure_ratio(rows, num_expected)
    metrics["search/num_lost"] = float(max(0, num_expected - total))
    return metrics


def _actions(rows: Sequence[Mapping[str, Any]], turns: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    searches = [turn for turn in turns if _is_search(turn) and turn["status"] in _CALLED]
    invalid = sum(turn["kind"] == ActionKind.INVALID.value for turn in turns)
    metrics = {
        "search/valid_searches": statistics.fmean(row["num_searches"] for row in rows),
        "search/invalid_actions": invalid / len(rows),
    }
    if searches:
        metrics["search/valid_search_ratio"] = _share(bool(turn["documents"]) for turn in searches)
    return metrics


def _requests(turns: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return what was seen of the retriever: latencies of requests, not of answers known from the same step.

    Other tools count where results were cut to their budget only.
    """
    results = [turn for turn in turns if turn["status"] == TurnStatus.RESULT.value]
    called = [turn for turn in turns if _is_search(turn) and turn["status"] in _CALLED]
    metrics = {}
    if called:
        metrics["search/failed_request_ratio"] = _share(turn["status"] == TurnStatus.FAILED.value for turn in called)
        metrics["search/retries"] = float(sum(max(0, turn["attempts"] - 1) for turn in called))
        metrics["search/cached_ratio"] = _share(turn["attempts"] == 0 for turn in called)
    if results:
        metrics["search/truncated_ratio"] = _share(turn["is_truncated"] for turn in results)
        metrics["search/num_truncated"] = float(sum(turn["is_truncated"] for turn in results))
    latencies = sorted(turn["latency_s"] for turn in called if turn["attempts"])
    if latencies:
        metrics["search/latency_s/p50"] = _percentile(latencies, 0.50)
        metrics["search/latency_s/p99"] = _percentile(latencies, 0.99)
    return metrics


def _tokens(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    metrics = {
        f"search/{kind}_tokens": statistics.fmean(row[f"num_{kind}"] for row in rows)
        for kind in ("policy", "observation", "answer")
    }
    context = sum(row["num_context"] for row in rows)
    if context:
        metrics["search/prefix_cache_hit_ratio"] = sum(row["num_cached"] for row in rows) / context
    return metrics


def _is_search(turn: Mapping[str, Any]) -> bool:
    return bool(turn["kind"] == ActionKind.CALL.value and turn["tool"] == SearchTool.name)


def _share(values: Iterable[bool]) -> float:
    return statistics.fmean(map(float, values))


def _percentile(ordered: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile: the smallest value that ``share`` of the values do not exceed."""
    return ordered[math.ceil(share * len(ordered)) - 1]
