"""The parts of the service that are functions of values and clocks."""

import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from retriever_server.auth import is_authorized, read_token
from retriever_server.corpus import Hit
from retriever_server.errors import OverloadedError, RequestError, SettingsError, TokenError
from retriever_server.jobs import estimate_tokens
from retriever_server.json_response import busy
from retriever_server.limits import RateLimit
from retriever_server.lru import LRU
from retriever_server.metrics import Metrics
from retriever_server.rate import ServiceRate
from retriever_server.service_settings import ServiceSettings
from retriever_server.wire import make_answer, parse_request, write_response


@given(
    puts=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), max_size=60),
    max_entries=st.integers(0, 5),
    max_bytes=st.integers(1, 80),
)
def test_the_cache_keeps_to_both_bounds_and_keeps_the_latest(
    puts: list[tuple[int, int]], max_entries: int, max_bytes: int
) -> None:
    cache: LRU[int, int] = LRU(max_entries=max_entries, max_bytes=max_bytes, size=lambda key, value: value)
    for key, value in puts:
        cache.put(key, value)
        assert len(cache) <= max_entries
        assert cache.num_bytes <= max_bytes
        if max_entries and value <= max_bytes:
            assert cache.get(key) == value
    assert cache.num_bytes == sum(cache.get(key) or 0 for key in range(10))


def test_the_least_recently_used_is_forgotten() -> None:
    cache: LRU[str, int] = LRU(max_entries=2, max_bytes=100, size=lambda key, value: 1)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_overlapping_batches_are_not_counted_twice() -> None:
    rate = ServiceRate()
    assert rate.seconds(100.0) == 0
    # Each takes two seconds, but one leaves every second.
    for number in range(40):
        rate.record(started=float(number), done=number + 2.0)
    assert rate.seconds(1.0) == pytest.approx(1.0, abs=0.01)
    # Idle time is nobody's cost.
    rate.record(started=1000.0, done=1001.0)
    assert rate.seconds(1.0) == pytest.approx(1.0, abs=0.01)


def test_a_bucket_lets_bursts_through_and_fills_again() -> None:
    limit = RateLimit(2.0)
    assert [limit.wait_s("a", 0.0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert limit.wait_s("b", 0.0) == 0.0
    assert limit.wait_s("a", 0.5) == 0.0
    assert limit.wait_s("a", 0.6) == pytest.approx(0.4)
    assert [limit.wait_s("a", 100.0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert [RateLimit(0.0).wait_s("a", 0.0) for _ in range(9)] == [0.0] * 9


@given(times=st.lists(st.floats(0, 100), max_size=80), per_second=st.floats(0.1, 20))
def test_no_address_gets_more_than_its_rate(times: list[float], per_second: float) -> None:
    limit = RateLimit(per_second)
    admitted = [now for now in sorted(times) if not limit.wait_s("a", now)]
    if admitted:
        assert len(admitted) <= max(per_second, 1) + per_second * (admitted[-1] - admitted[0]) + 1e-6


def test_tokens() -> None:
    assert is_authorized("Bearer s3cret", "s3cret")
    assert is_authorized("bearer  s3cret ", "s3cret")
    for header in (
        None,
        "",
        "s3cret",
        "Bearer",
        "Bearer ",
        "Bearer s3cre",
        "Bearer s3crett",
        "Basic s3cret",
        "Bearer é",
    ):
        assert not is_authorized(header, "s3cret")


def test_tokens_are_read_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETRIEVER_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("RETRIEVER_TOKEN", "from-environment")
    assert read_token(None) == "from-environment"
    (tmp_path / "token").write_text("from-file\n")
    assert read_token(tmp_path / "token") == "from-file"
    for contents in ("", "two words", "\u00e9"):
        (tmp_path / "token").write_text(contents)
        with pytest.raises(TokenError, match="holds no token"):
            read_token(tmp_path / "token")
    with pytest.raises(TokenError, match="cannot be read"):
        read_token(tmp_path / "missing")


def test_a_token_opens_other_addresses_and_is_never_printed() -> None:
    settings = ServiceSettings(host="0.0.0.0", token="s3cret")
    assert "s3cret" not in repr(settings)
    with pytest.raises(SettingsError, match="--token-file"):
        ServiceSettings(host="0.0.0.0")
    assert ServiceSettings(host="0.0.0.0", insecure=True).token is None


@pytest.mark.parametrize(
    "changes",
    [
        {"deadline_s": 0.0},
        {"deadline_s": float("nan")},
        {"drain_s": -1.0},
        {"cache_size": -1},
        {"max_rps": -0.5},
        {"workers": 0},
        {"max_batch_tokens": 0},
        {"max_passages": 0},
        {"max_passages": 99},
        {"cache_mb": 0},
        {"read_timeout_s": float("inf")},
    ],
)
def test_wrong_numbers_are_refused_by_name(changes: dict[str, float]) -> None:
    (name,) = changes
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')} (is|99 is)"):
        ServiceSettings(**changes)  # type: ignore[arg-type]


@given(st.text(max_size=5000))
def test_estimates_are_bounded_and_never_zero(text: str) -> None:
    assert 2 <= estimate_tokens(text) <= 512


def test_answers_have_both_shapes() -> None:
    hits = [Hit(b'{"id":"1","contents":"a"}', 0.5), Hit(b'{"id":"2","contents":"b"}', 0.25)]
    answer = make_answer(hits)
    assert orjson.loads(write_response([answer, make_answer([])], with_scores=True)) == {
        "result": [
            [
                {"document": {"id": "1", "contents": "a"}, "score": 0.5},
                {"document": {"id": "2", "contents": "b"}, "score": 0.25},
            ],
            [],
        ]
    }
    assert orjson.loads(write_response([answer], with_scores=False)) == {
        "result": [[{"id": "1", "contents": "a"}, {"id": "2", "contents": "b"}]]
    }
    assert write_response([], with_scores=True) == b'{"result":[]}'
    assert orjson.loads(answer.bare) == [{"id": "1", "contents": "a"}, {"id": "2", "contents": "b"}]
    assert [hit["score"] for hit in orjson.loads(answer.scored)] == [0.5, 0.25]
    # One copy of the text, whatever is asked for.
    assert 1000 < make_answer([Hit(b"x" * 1000, 0.5)]).num_bytes < 1200
    for score in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            make_answer([Hit(b"{}", score)])


@pytest.mark.parametrize(
    ("queries", "says"),
    [
        ([1] * 400_000, "queries: more than 8192"),
        ([1] * 8192, "queries.0: "),
        (["a"] * 8193, "queries: more than 8192"),
    ],
)
def test_a_wrong_request_costs_little_memory(queries: list[Any], says: str) -> None:
    body = json.dumps({"queries": queries}).encode()
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match=says):
            parse_request(body, max_queries=8192)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The text of the body and the list of it.
    assert peak < 5 * len(body) + 2e6


@pytest.mark.parametrize("field", ["queries", "unknown"])
def test_a_body_of_millions_of_values_is_not_parsed(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    monkeypatch.setattr(json, "loads", lambda body: pytest.fail("it was parsed"))
    body = b'{"%s":[%s]}' % (field.encode(), b",".join([b"{}"] * 3_000_000))
    with pytest.raises(RequestError, match="body: more than 1048576 commas"):
        parse_request(body, max_queries=8192)


def test_a_query_of_a_million_commas_is_a_query() -> None:
    assert parse_request(b'{"query":"%s"}' % (b"," * 1_000_000), max_queries=1).texts == ["," * 1_000_000]


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (3.1, "4"), (1e9, "60")])
def test_a_refusal_says_when_to_come_back_and_survives_pickling(seconds: float, header: str) -> None:
    error = pickle.loads(pickle.dumps(OverloadedError("full", "queue_full", seconds)))
    assert (str(error), error.reason) == ("full", "queue_full")
    answer = busy(error)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, header)


def test_metrics_are_prometheus_text() -> None:
    metrics = Metrics()
    metrics.rejects.labels("queue_full").inc()
    families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    assert all(name.startswith("retriever_") for name in families)
    assert {"retriever_queue_depth", "retriever_batch_queries", "retriever_stage_seconds"} <= set(families)
    (sample,) = [sample for sample in families["retriever_rejects"].samples if sample.name.endswith("_total")]
    assert (sample.labels, sample.value) == ({"reason": "queue_full"}, 1.0)
