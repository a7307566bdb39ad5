from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_llds.errors import RetrievalError
from verl_llds.search.metrics import check_failures, search_metrics
from verl_llds.search.settings import SearchConfig
from verl_llds.search.trajectory import EpisodeStatus


def row(status: str = "answered", **values: Any) -> dict[str, Any]:
    blank = {"num_searches": 0, "num_asked": 0, "num_invalid": 0, "search_s": [], "num_tokens": 10, "num_policy": 10}
    return {"status": status, **blank, **values}


@given(st.lists(st.sampled_from([status.value for status in EpisodeStatus]), min_size=1))
def test_shares_add_up_to_one(statuses: list[str]) -> None:
    metrics = search_metrics([row(status) for status in statuses])
    shares = {name: value for name, value in metrics.items() if name.startswith("search/status/")}
    assert sum(shares.values()) == pytest.approx(1)
    assert len(shares) == len(EpisodeStatus)
    assert shares[f"search/status/{statuses[0]}"] == statuses.count(statuses[0]) / len(statuses)


def test_means_are_per_trajectory() -> None:
    rows = [
        row(num_searches=3, num_asked=4, num_invalid=1, num_tokens=100, num_policy=40),
        row(num_searches=0, num_invalid=0, num_tokens=20, num_policy=20),
    ]
    metrics = search_metrics(rows)
    assert metrics["search/valid_searches"] == 1.5
    assert metrics["search/valid_search_ratio"] == 0.75
    assert metrics["search/invalid_actions"] == 0.5
    assert metrics["search/policy_tokens"] == 30
    assert metrics["search/observation_tokens"] == 30
    assert "search/latency_s/p50" not in metrics


def test_nobody_searched() -> None:
    assert "search/valid_search_ratio" not in search_metrics([row(), row()])


def test_both_kinds_of_answer_count() -> None:
    rows = [row("answered"), row("answered_forced"), row("out_of_turns"), row("out_of_tokens")]
    assert search_metrics(rows)["search/answer_share"] == 0.5


@pytest.mark.parametrize(
    ("latencies", "p50", "p99"),
    [([5], 5, 5), ([2, 1], 1, 2), ([3, 1, 2], 2, 3), (range(1, 101), 50, 99), (range(1, 201), 100, 198)],
)
def test_percentiles_are_nearest_rank(latencies: list[float], p50: float, p99: float) -> None:
    middle = len(latencies) // 2
    metrics = search_metrics([row(search_s=latencies[middle:]), row(search_s=latencies[:middle])])
    assert (metrics["search/latency_s/p50"], metrics["search/latency_s/p99"]) == (p50, p99)


def test_too_many_failed_searches_stop_the_run() -> None:
    rows = [row("retrieval_failed"), *[row()] * 9]
    check_failures(rows, SearchConfig(max_failed_ratio=0.1))
    with pytest.raises(RetrievalError, match=r"1 of 10 .*http://h/retrieve.*max_failed_ratio is 0\.09"):
        check_failures(rows, SearchConfig(max_failed_ratio=0.09, url="http://h/retrieve"))
    check_failures([row("retrieval_failed")] * 3, SearchConfig(max_failed_ratio=1))
    check_failures([row("engine_aborted"), row("out_of_turns")], SearchConfig(max_failed_ratio=0))
