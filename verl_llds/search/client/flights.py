"""Searches under way, shared by callers that ask for the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, replace
from typing import Any

from verl_llds.errors import RetrievalError
from verl_llds.search.tools import SearchResult


@dataclass
class _Flight:
    task: asyncio.Task[SearchResult]
    num_waiting: int = 0
    is_reported: bool = False


class Flights:
    """One task per search; it lives as long as anyone waits for it."""

    def __init__(self) -> None:
        self._shared: dict[Hashable, _Flight] = {}
        # Apart from the flights: one that nobody waits for is no longer joined, but still has to end.
        self._tasks: set[asyncio.Task[SearchResult]] = set()

    async def join(self, key: Hashable, search: Callable[[], Coroutine[Any, Any, SearchResult]]) -> SearchResult:
        """Return the result of the search under way for a key, or start one.

        The requests it took are reported to the first caller that returns; to the others it took none. An error is
        the same for all of them.

        Raises:
            RetrievalError: if the search does, or is ended by `close`.
        """
        flight = self._shared.get(key) or self._take_off(key, search)
        flight.num_waiting += 1
        try:
            await asyncio.wait({flight.task})
        finally:
            flight.num_waiting -= 1
            if not flight.num_waiting and not flight.task.done():
                flight.task.cancel()
                self._forget(key, flight)
        if flight.task.cancelled():
            raise RetrievalError("the retriever client was closed while a query waited: close it after the last one")
        result = flight.task.result()
        if flight.is_reported:
            return replace(result, attempts=0)
        flight.is_reported = True
        return result

    async def close(self) -> None:
        """End every search and wait until it has ended."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _take_off(self, key: Hashable, search: Callable[[], Coroutine[Any, Any, SearchResult]]) -> _Flight:
        task = asyncio.create_task(search())
        flight = self._shared[key] = _Flight(task)
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._land(key, flight))
        return flight

    def _land(self, key: Hashable, flight: _Flight) -> None:
        self._tasks.discard(flight.task)
        self._forget(key, flight)
        if not flight.task.cancelled():
            # Marks it as seen: an error after the last caller has left is of no interest.
            flight.task.exception()

    def _forget(self, key: Hashable, flight: _Flight) -> None:
        if self._shared.get(key) is flight:
            del self._shared[key]
