"""Which retriever a query is asked at, and when it is asked again."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Sequence

import aiohttp

from verl_llds.search.client.attempt import AttemptError, attempt
from verl_llds.search.client.backoff import backoff_s
from verl_llds.search.client.breaker import Permit
from verl_llds.search.client.endpoint import Endpoint
from verl_llds.search.client.tries import Tries
from verl_llds.search.documents import Document
from verl_llds.search.settings import SearchConfig
from verl_llds.search.tools import SearchResult

_GRACE_S = 0.25
"""How much later than ``max_wait_s`` a query is cut off, so that its last request can still end by its own timeout."""


class Retrievers:
    """All addresses of one event loop, with the requests that may be in flight at them.

    A query goes in rounds. In a round it holds one of ``max_concurrency`` slots and asks the retrievers that are
    ready, in their order, each once and without a wait in between. Between rounds it waits without a slot: what
    lowers the load on a retriever in trouble is its breaker, the pause it asked for and the query's own backoff,
    while a slot that is held would only keep queries from a retriever that works.
    """

    def __init__(self, settings: SearchConfig, http: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._http = http
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        self._endpoints = [Endpoint(url, max_wait_s=settings.max_wait_s, clock=time.monotonic) for url in settings.urls]
        self._probe_ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._num_recoveries = 0

    async def search(self, query: str) -> SearchResult:
        """Ask until there is an answer.

        Raises:
            RetrievalError: once the query was rejected, found no address right, failed ``max_attempts`` times, or took
                ``max_wait_s``.
        """
        max_wait_s = self._settings.max_wait_s
        tries = Tries(self._settings, time.monotonic() + max_wait_s)
        try:
            documents = await asyncio.wait_for(self._ask(query, tries), max_wait_s + _GRACE_S)
        except asyncio.TimeoutError:
            raise tries.error(self._endpoints) from tries.last
        return SearchResult(documents=documents, attempts=tries.num_attempts)

    async def _ask(self, query: str, tries: Tries) -> tuple[Document, ...]:
        num_failed_rounds, not_before = 0, 0.0
        while True:
            candidates = [endpoint for endpoint in self._endpoints if endpoint.url not in tries.wrong]
            not_before = await self._until_ready(candidates, not_before)
            errors: list[AttemptError] = []
            async with self._slots:
                for endpoint in candidates:
                    self._give_up_if_over(tries)
                    permit = endpoint.admit(not_before)
                    if permit is None:
                        continue
                    try:
                        return await self._request(endpoint, permit, query, tries)
                    except AttemptError as error:
                        errors.append(error)
            self._give_up_if_over(tries)
            # Who was told when to come back goes by that.
            if any(error.retry_after_s is None for error in errors):
                num_failed_rounds += 1
                not_before = time.monotonic() + backoff_s(num_failed_rounds, random.random())

    def _give_up_if_over(self, tries: Tries) -> None:
        if tries.end is not None:
            raise tries.error(self._endpoints) from tries.last

    async def _until_ready(self, endpoints: Sequence[Endpoint], not_before: float) -> float:
        """Wait until some retriever may be asked and return when the query's backoff ends: a recovery ends it."""
        num_recoveries = self._num_recoveries
        while True:
            if self._num_recoveries > num_recoveries:
                not_before = 0.0
            wait_s = min(endpoint.ready_in_s(not_before) for endpoint in endpoints)
            if wait_s <= 0:
                return not_before
            # While a probe is under way, nobody knows for how long.
            await asyncio.wait({self._probe_ended}, timeout=None if wait_s == math.inf else wait_s)

    async def _request(self, endpoint: Endpoint, permit: Permit, query: str, tries: Tries) -> tuple[Document, ...]:
        timeout_s = tries.begin(endpoint.url)
        try:
            documents = await attempt(
                self._http, endpoint.url, query=query, topk=self._settings.topk, timeout_s=timeout_s
            )
        except AttemptError as error:
            tries.fail(endpoint.url, error)
            endpoint.failed(permit, error)
            raise
        except BaseException:
            endpoint.abandoned(permit)
            raise
        else:
            endpoint.answered(permit)
            return documents
        finally:
            if permit.is_probe:
                self._num_recoveries += not endpoint.is_down
                self._tell_of_probe()

    def _tell_of_probe(self) -> None:
        told, self._probe_ended = self._probe_ended, asyncio.get_running_loop().create_future()
        told.set_result(None)
