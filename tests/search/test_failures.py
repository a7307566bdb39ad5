"""When a step's failures stop the run, and what the error says."""

from __future__ import annotations

from typing import Any

import pytest

from verl_llds.errors import RolloutError
from verl_llds.search.failures import check_failures, failure_ratio
from verl_llds.search.settings import SearchConfig


def row(status: str = "answered", error: str = "") -> dict[str, Any]:
    return {"status": status, "error": error}


def test_at_the_limit_the_run_goes_on_and_above_it_stops() -> None:
    rows = [row("retrieval_failed", "refused"), *[row()] * 9]
    check_failures(rows, 10, SearchConfig(max_failure_ratio=0.1), "step 3")
    with pytest.raises(RolloutError, match=r"1 of 10 trajectories of step 3 failed .*max_failure_ratio is 0\.09"):
        check_failures(rows, 10, SearchConfig(max_failure_ratio=0.09), "step 3")


def test_the_error_names_causes_and_retrievers() -> None:
    rows = [row("retrieval_failed", "refused")] * 3 + [row("errored", "KeyError: 'x'"), row()]
    settings = SearchConfig(url=("http://a/retrieve", "http://b/retrieve"))
    with pytest.raises(RolloutError) as stopped:
        check_failures(rows, 6, settings, "step 1")
    said = str(stopped.value)
    assert "5 of 6" in said
    assert "3 retrieval_failed, 3 of them with 'refused'; 1 errored, 1 of them with \"KeyError: 'x'\"" in said
    assert "1 lost by verl" in said
    assert "http://a/retrieve, http://b/retrieve" in said


def test_only_the_environment_s_failures_count() -> None:
    rows = [row(status) for status in ("out_of_turns", "out_of_tokens", "invalid_actions", "answered_forced")]
    check_failures(rows, 4, SearchConfig(max_failure_ratio=0), "step 1")


def test_at_a_ratio_of_one_it_stops_only_where_nothing_is_left_to_train_on() -> None:
    settings = SearchConfig(max_failure_ratio=1)
    check_failures([*[row("engine_aborted")] * 3, row()], 9, settings, "step 1")
    with pytest.raises(RolloutError, match=r"9 of 9 .*nothing is left to train on"):
        check_failures([row("engine_aborted")] * 3, 9, settings, "step 1")
    penalised = SearchConfig(max_failure_ratio=1, on_failure="penalise")
    check_failures([row("engine_aborted")] * 3, 3, penalised, "step 1")


def test_under_raise_one_failure_stops_the_run() -> None:
    settings = SearchConfig(on_failure="raise", max_failure_ratio=1)
    check_failures([row()] * 100, 100, settings, "step 1")
    with pytest.raises(RolloutError, match=r"1 of 100 .*search\.on_failure is raise"):
        check_failures([row("tool_failed"), *[row()] * 99], 100, settings, "step 1")


@pytest.mark.parametrize(("num_rows", "num_expected", "ratio"), [(4, 4, 0.0), (3, 4, 0.25), (4, 3, 0.0), (0, 0, 0.0)])
def test_what_never_came_has_failed(num_rows: int, num_expected: int, ratio: float) -> None:
    assert failure_ratio([row()] * num_rows, num_expected) == ratio
