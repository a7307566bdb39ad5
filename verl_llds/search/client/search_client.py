"""The client of Search-R1's ``/retrieve``: pooled, bounded, patient, and typed when it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import NamedTuple

import aiohttp

from verl_llds.search.client.attempt import open_session
from verl_llds.search.client.cache import MAX_QUERIES, StepCache
from verl_llds.search.client.failover import Retrievers
from verl_llds.search.client.flights import Flights
from verl_llds.search.settings import SearchConfig
from verl_llds.search.tools import SearchResult


class _Pool(NamedTuple):
    loop: asyncio.AbstractEventLoop
    http: aiohttp.ClientSession
    retrievers: Retrievers
    flights: Flights


class SearchClient:
    """One client per event loop, shared by all of its episodes; it implements `verl_llds.search.tools.Searcher`."""

    def __init__(self, settings: SearchConfig) -> None:
        self.settings = settings
        self._cache = StepCache(MAX_QUERIES if settings.cache else 0)
        self._pool: _Pool | None = None

    def __repr__(self) -> str:
        return f"SearchClient({', '.join(map(repr, self.settings.urls))})"

    async def search(self, query: str) -> SearchResult:
        """Return the passages for one query, best first.

        With ``cache`` on, a query that was asked in this step, or is being asked, takes no further request.

        Raises:
            RetrievalError: if a retriever rejects the query, after ``max_attempts`` timeouts or bad answers, after
                ``max_wait_s``, or when the client is closed. Its ``attempts`` are the requests made.
        """
        known = self._cache.get(query)
        if known is not None:
            return known
        pool, step = self._pool_here(), self._cache.step

        async def ask() -> SearchResult:
            result = await pool.retrievers.search(query)
            self._cache.put(step, query, result)
            return result

        # A search of a step that is over may be asking a retriever that was exchanged since.
        key: Hashable = (step, query) if self.settings.cache else object()
        return await pool.flights.join(key, ask)

    def start_step(self, step: int) -> None:
        """Tell of the training step that queries belong to; one later than the present one empties the cache."""
        self._cache.start_step(step)

    async def close(self) -> None:
        """End every search and close the connections; a later search opens new ones."""
        pool, self._pool = self._pool, None
        if pool is not None and pool.loop is asyncio.get_running_loop():
            await pool.flights.close()
            await pool.http.close()

    def _pool_here(self) -> _Pool:
        loop = asyncio.get_running_loop()
        # Connections, tasks and locks work only on the event loop that made them.
        if self._pool is None or self._pool.loop is not loop:
            http = open_session(self.settings.max_concurrency)
            self._pool = _Pool(loop, http, Retrievers(self.settings, http), Flights())
        return self._pool
