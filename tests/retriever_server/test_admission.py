"""What is let in, by the estimate of how long it would wait."""

import asyncio
from typing import Any

import pytest

from retriever_server.admission import Admission
from retriever_server.errors import OverloadedError
from retriever_server.metrics import Metrics
from retriever_server.service_settings import ServiceSettings
from retriever_server.wire import Answer

ANSWER = Answer((), ())


async def experienced(seconds_per_query: float, **settings: Any) -> Admission:
    """One of batches of one query that has seen a batch take so long."""
    admission = Admission(ServiceSettings(cache_size=0, max_batch=1, **settings), Metrics(), max_chars=1000)
    admission.admit(["first"], 1, None)
    batch = admission.take()
    admission.settle(batch, [ANSWER], asyncio.get_running_loop().time() - seconds_per_query)
    return admission


async def test_a_deadline_that_cannot_be_met_is_refused_at_once_and_says_when_to_return() -> None:
    admission = await experienced(4.0)
    for number in range(5):
        admission.admit([f"wait{number}"], 1, None)
    with pytest.raises(OverloadedError, match="20 s to get to this request, longer than the 15 s") as caught:
        admission.admit(["hurry"], 1, 15.0)
    assert caught.value.reason == "deadline"
    assert caught.value.retry_after_s == pytest.approx(5.0, abs=0.1)
    assert not admission.admit(["patient"], 1, 24.0).future.done()


async def test_what_is_with_the_engine_counts_too() -> None:
    admission = await experienced(4.0)
    admission.admit(["wait0", "wait1"], 1, None)
    assert [len(admission.take()) for _ in range(2)] == [1, 1]
    with pytest.raises(OverloadedError, match="8 s to get"):
        admission.admit(["hurry"], 1, 7.0)


async def test_with_nothing_before_it_a_request_is_let_in_whatever_the_estimate() -> None:
    admission = await experienced(1000.0)
    assert not admission.admit(["first of all"], 1, 1.0).future.done()


async def test_a_small_request_is_judged_by_its_turn_behind_a_large_one() -> None:
    admission = await experienced(0.1)
    admission.admit([f"large{number}" for number in range(1000)], 1, None)
    assert not admission.admit(["small"], 1, 5.0).future.done()
    with pytest.raises(OverloadedError, match="longer than the 5 s"):
        admission.admit([f"too{number}" for number in range(1000)], 1, 5.0)


async def test_a_full_queue_says_when_it_will_be_half_empty() -> None:
    admission = await experienced(1.0, max_queue=10)
    admission.admit([f"w{number}" for number in range(10)], 1, None)
    with pytest.raises(OverloadedError) as caught:
        admission.admit(["one more"], 1, None)
    assert caught.value.reason == "queue_full"
    assert 3 < caught.value.retry_after_s < 6
    # What waits already may be waited for by more.
    assert not admission.admit(["w3"], 1, None).future.done()


async def test_long_queries_are_cut_to_what_the_encoder_reads() -> None:
    admission = await experienced(1.0)
    admission.admit(["x" * 5000, "x" * 2000], 1, None)
    (job,) = admission.take()
    assert job.key.text == "x" * 1000


async def test_one_slow_small_batch_does_not_turn_a_crowd_away() -> None:
    admission = Admission(ServiceSettings(cache_size=0), Metrics(), max_chars=1000)
    admission.admit(["first"], 1, None)
    admission.settle(admission.take(), [ANSWER], asyncio.get_running_loop().time() - 1.0)
    for number in range(500):
        assert not admission.admit([f"one of a crowd, number {number}"], 1, None).future.done()
