"""Answers kept within a step, and searches that callers share, without a server."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from verl_llds.errors import RetrievalError
from verl_llds.search.client.cache import StepCache
from verl_llds.search.client.flights import Flights
from verl_llds.search.documents import Document
from verl_llds.search.tools import SearchResult

RESULT = SearchResult(documents=(Document("7", "Paris"),), attempts=3)
KNOWN = SearchResult(documents=RESULT.documents, attempts=0)


def test_an_answer_is_known_under_exactly_its_query() -> None:
    cache = StepCache()
    cache.put(cache.step, "who", RESULT)
    assert cache.get("who") == KNOWN
    assert cache.get("Who") is None
    assert cache.get("who ") is None


def test_only_a_later_step_empties_the_cache() -> None:
    cache = StepCache()
    cache.start_step(5)
    cache.put(5, "who", RESULT)
    for step in (5, 4, 0, -1):
        cache.start_step(step)
        assert cache.get("who") == KNOWN
    cache.start_step(6)
    assert cache.get("who") is None
    assert cache.step == 6


def test_an_answer_of_a_step_that_is_over_is_not_kept() -> None:
    cache = StepCache()
    cache.start_step(5)
    cache.put(4, "who", RESULT)
    assert cache.get("who") is None


def test_a_full_cache_keeps_what_it_has() -> None:
    cache = StepCache(max_queries=2)
    for query in "abc":
        cache.put(cache.step, query, RESULT)
    assert [cache.get(query) for query in "abc"] == [KNOWN, KNOWN, None]


class Search:
    """A search that ends when told to."""

    def __init__(self) -> None:
        self.num_started = self.num_cancelled = 0
        self.end: asyncio.Future[SearchResult] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> SearchResult:
        self.num_started += 1
        try:
            return await asyncio.shield(self.end)
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise


async def started(flights: Flights, search: Search, num_callers: int) -> list[asyncio.Task[SearchResult]]:
    callers = [asyncio.create_task(flights.join("who", search)) for _ in range(num_callers)]
    await asyncio.sleep(0.01)
    return callers


async def test_callers_share_one_search_and_one_of_them_reports_its_requests() -> None:
    flights, search = Flights(), Search()
    callers = await started(flights, search, 5)
    search.end.set_result(RESULT)
    assert await asyncio.gather(*callers) == [RESULT, KNOWN, KNOWN, KNOWN, KNOWN]
    assert search.num_started == 1


async def test_other_keys_are_searched_on_their_own() -> None:
    flights, search = Flights(), Search()
    search.end.set_result(RESULT)
    assert await asyncio.gather(*(flights.join(key, search) for key in range(3))) == [RESULT] * 3
    assert search.num_started == 3


async def test_an_error_reaches_every_caller_and_is_not_kept() -> None:
    flights, search = Flights(), Search()
    callers = await started(flights, search, 3)
    search.end.set_exception(RetrievalError("down"))
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert [str(error) for error in errors] == ["down"] * 3
    search.end = asyncio.get_running_loop().create_future()
    search.end.set_result(RESULT)
    assert await flights.join("who", search) == RESULT


async def test_one_caller_s_cancellation_leaves_the_search_to_the_others() -> None:
    flights, search = Flights(), Search()
    callers = await started(flights, search, 3)
    callers[0].cancel()
    await asyncio.sleep(0.01)
    search.end.set_result(RESULT)
    # The first of those left reports the requests.
    assert await asyncio.gather(*callers[1:]) == [RESULT, KNOWN]
    assert callers[0].cancelled()
    assert search.num_cancelled == 0


async def test_the_search_is_cancelled_with_its_last_caller_and_not_joined_afterwards() -> None:
    flights, search = Flights(), Search()
    for caller in await started(flights, search, 3):
        caller.cancel()
    await asyncio.sleep(0)
    late = asyncio.create_task(flights.join("who", search))
    await asyncio.sleep(0.01)
    assert (search.num_started, search.num_cancelled) == (2, 1)
    search.end.set_result(RESULT)
    assert await late == RESULT


async def test_an_error_nobody_waits_for_is_not_reported() -> None:
    async def fail_when_cancelled() -> SearchResult:
        try:
            return await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise RetrievalError("late") from None

    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    caller = asyncio.create_task(Flights().join("who", fail_when_cancelled))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    del caller
    await asyncio.sleep(0.01)
    gc.collect()
    assert reported == []


async def test_close_ends_every_search_with_an_error_of_its_own() -> None:
    flights, search = Flights(), Search()
    callers: list[Any] = await started(flights, search, 2)
    await flights.close()
    assert search.num_cancelled == 1
    for caller in callers:
        with pytest.raises(RetrievalError, match="closed"):
            await caller
