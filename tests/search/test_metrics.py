from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_llds.search.metrics import search_metrics
from verl_llds.search.trajectory import EpisodeStatus

BLANK = {
    "num_searches": 0,
    "num_policy": 10,
    "num_observation": 0,
    "num_answer": 0,
    "num_context": 0,
    "num_cached": 0,
    "turns": [],
    "error": "",
}


def row(status: str = "answered", **values: Any) -> dict[str, Any]:
    return {**BLANK, "status": status, **values}


def call(status: str = "result", **values: Any) -> dict[str, Any]:
    blank = {
        "kind": "call",
        "tool": "search",
        "documents": ["1"],
        "attempts": 1,
        "latency_s": 0.1,
        "is_truncated": False,
    }
    return {**blank, "status": status, **values}


def measure(*rows: dict[str, Any]) -> dict[str, float]:
    return search_metrics(rows, len(rows))


@given(st.lists(st.sampled_from([status.value for status in EpisodeStatus]), min_size=1))
def test_shares_add_up_to_one(statuses: list[str]) -> None:
    metrics = measure(*(row(status) for status in statuses))
    shares = {name: value for name, value in metrics.items() if name.startswith("search/status/")}
    counts = {name: value for name, value in metrics.items() if name.startswith("search/status_count/")}
    assert sum(shares.values()) == pytest.approx(1)
    assert sum(counts.values()) == len(statuses)
    assert len(shares) == len(counts) == len(EpisodeStatus)
    assert shares[f"search/status/{statuses[0]}"] == statuses.count(statuses[0]) / len(statuses)


def test_means_are_per_trajectory() -> None:
    invalid = {"kind": "invalid", "status": "invalid", "documents": []}
    not_called = call("not_called", documents=[], attempts=0)
    metrics = measure(
        row(
            num_searches=3, num_policy=40, num_observation=60, num_answer=4, turns=[call()] * 3 + [invalid, not_called]
        ),
        row(num_policy=20),
    )
    assert metrics["search/valid_searches"] == 1.5
    # A search in the last turn is not made: that is search/status/out_of_turns, and no fault of the retriever's.
    assert metrics["search/valid_search_ratio"] == 1.0
    assert metrics["search/invalid_actions"] == 0.5
    assert metrics["search/policy_tokens"] == 30
    assert metrics["search/observation_tokens"] == 30
    assert metrics["search/answer_tokens"] == 2


def test_nobody_searched() -> None:
    metrics = measure(row(), row())
    for name in ("valid_search_ratio", "latency_s/p50", "retries", "truncated_ratio", "prefix_cache_hit_ratio"):
        assert f"search/{name}" not in metrics


def test_both_kinds_of_answer_count() -> None:
    rows = row(), row("answered_forced"), row("out_of_turns"), row("out_of_tokens")
    assert measure(*rows)["search/answer_share"] == 0.5


def test_requests_are_told_from_answers_known_before() -> None:
    turns = [
        call(attempts=3, latency_s=2.0),
        call(attempts=0, latency_s=0.0),
        call("failed", attempts=5, latency_s=9.0, documents=[]),
        call(is_truncated=True),
    ]
    metrics = measure(row(turns=turns))
    assert metrics["search/failed_request_ratio"] == 0.25
    assert metrics["search/retries"] == 2 + 4
    assert metrics["search/cached_ratio"] == 0.25
    assert metrics["search/truncated_ratio"] == pytest.approx(1 / 3)
    assert metrics["search/num_truncated"] == 1
    assert (metrics["search/latency_s/p50"], metrics["search/latency_s/p99"]) == (2.0, 9.0)


def test_other_tools_are_no_searches() -> None:
    searched = [call(), call("failed", attempts=2, latency_s=3.0, documents=[])]
    calculated = [call(tool="calculate", documents=[], latency_s=8.0, is_truncated=True)] * 3
    alone, beside = measure(row(turns=searched)), measure(row(turns=searched + calculated))
    for name in ("valid_search_ratio", "failed_request_ratio", "retries", "cached_ratio", "latency_s/p99"):
        assert beside[f"search/{name}"] == alone[f"search/{name}"], name
    assert (alone["search/num_truncated"], beside["search/num_truncated"]) == (0, 3)


def test_lost_and_failed_trajectories_count_alike() -> None:
    metrics = search_metrics([row("retrieval_failed"), row(), row()], 4)
    assert metrics["search/failure_ratio"] == 0.5
    assert metrics["search/num_lost"] == 1


def test_prefix_cache_hits_are_weighted_by_tokens() -> None:
    metrics = measure(row(num_context=100, num_cached=90), row(num_context=300, num_cached=10))
    assert metrics["search/prefix_cache_hit_ratio"] == 0.25


@pytest.mark.parametrize(
    ("latencies", "p50", "p99"),
    [([5], 5, 5), ([2, 1], 1, 2), ([3, 1, 2], 2, 3), (range(1, 101), 50, 99), (range(1, 201), 100, 198)],
)
def test_percentiles_are_nearest_rank(latencies: list[float], p50: float, p99: float) -> None:
    turns = [call(latency_s=seconds) for seconds in latencies]
    middle = len(turns) // 2
    metrics = measure(row(turns=turns[middle:]), row(turns=turns[:middle]))
    assert (metrics["search/latency_s/p50"], metrics["search/latency_s/p99"]) == (p50, p99)
