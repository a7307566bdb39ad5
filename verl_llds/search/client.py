"""An async client of Search-R1's ``/retrieve``: pooled, bounded, retrying, and typed when it gives up."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import aiohttp

from verl_llds.errors import RetrievalError
from verl_llds.search.protocol import Document
from verl_llds.search.settings import SearchConfig

_FIRST_BACKOFF_S = 0.25
_MAX_DOUBLINGS = 5

_RETRIED_STATUS = frozenset({429, 500, 502, 503, 504})
"""Answers that a later attempt may better; any other error status is the request's own fault."""


class Searcher(Protocol):
    """What an episode needs of a retriever."""

    async def search(self, query: str) -> Sequence[Document]:
        """Return the passages for one query, best first.

        Raises:
            RetrievalError: if there is no answer to be had.
        """
        ...


class _Pool(NamedTuple):
    loop: asyncio.AbstractEventLoop
    http: aiohttp.ClientSession
    slots: asyncio.Semaphore


class _Refused(Exception):
    """An answer with an error status."""

    def __init__(self, status: int, body: str, retry_after: str) -> None:
        super().__init__(f"HTTP {status}, {body!r}")
        self.status = status
        self.retry_after = retry_after


class SearchClient:
    """One connection pool to one retriever; share it among all episodes of an event loop."""

    def __init__(self, settings: SearchConfig) -> None:
        self.settings = settings
        self._pool: _Pool | None = None

    def __repr__(self) -> str:
        return f"SearchClient({self.settings.url!r})"

    async def search(self, query: str) -> list[Document]:
        """Return the passages for one query, best first.

        Raises:
            RetrievalError: after ``max_attempts`` failures, or at once for an answer that is no result.
        """
        body = {"queries": [query], "topk": self.settings.topk, "return_scores": True}
        pool = self._pool_here()
        # Held while waiting to try again: a retriever that is too busy gets fewer requests, not more.
        async with pool.slots:
            answer = await self._post(pool.http, body)
        return self._documents(answer)

    async def close(self) -> None:
        """Close the pool; a later search opens a new one."""
        pool, self._pool = self._pool, None
        if pool is not None and pool.loop is asyncio.get_running_loop():
            await pool.http.close()

    def _pool_here(self) -> _Pool:
        loop = asyncio.get_running_loop()
        # A connection works only on the event loop that opened it.
        if self._pool is None or self._pool.loop is not loop:
            connector = aiohttp.TCPConnector(limit=self.settings.max_concurrency)
            timeout = aiohttp.ClientTimeout(total=self.settings.timeout_s)
            http = aiohttp.ClientSession(connector=connector, timeout=timeout)
            self._pool = _Pool(loop, http, asyncio.Semaphore(self.settings.max_concurrency))
        return self._pool

    async def _post(self, http: aiohttp.ClientSession, body: dict[str, object]) -> Any:
        cause: Exception | None = None
        for attempt in range(self.settings.max_attempts):
            if attempt:
                await asyncio.sleep(self._wait_s(attempt, cause))
            try:
                return await self._attempt(http, body)
            except _Refused as error:
                cause = error
                if error.status not in _RETRIED_STATUS:
                    break
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                cause = error
            except ValueError as error:
                cause = error
                break
        raise RetrievalError(
            f"no search result from {self.settings.url} after {attempt + 1} attempt(s): {self._why(cause)}. "
            "Is search.url where a retriever listens? `retriever-server serve --index DIR` starts one"
        ) from cause

    async def _attempt(self, http: aiohttp.ClientSession, body: dict[str, object]) -> Any:
        async with http.post(self.settings.url, json=body) as response:
            content = await response.read()
            if response.status >= 300:
                text = content[:200].decode(errors="replace")
                raise _Refused(response.status, text, response.headers.get("Retry-After", ""))
            return json.loads(content)

    def _wait_s(self, attempt: int, cause: Exception | None) -> float:
        """Return the seconds to wait: the server's Retry-After if it sent one, else doubling, with jitter."""
        # Jitter keeps a rollout's workers from returning in step.
        if isinstance(cause, _Refused) and cause.retry_after.isdecimal():
            return min(float(cause.retry_after), self.settings.timeout_s) * random.uniform(1.0, 1.25)
        return _FIRST_BACKOFF_S * 2.0 ** min(attempt - 1, _MAX_DOUBLINGS) * random.uniform(0.5, 1.0)

    def _why(self, cause: Exception | None) -> str:
        if isinstance(cause, _Refused):
            return str(cause)
        if isinstance(cause, asyncio.TimeoutError):
            return f"no answer within search.timeout_s={self.settings.timeout_s}"
        return f"{type(cause).__name__}: {cause}"

    def _documents(self, answer: Any) -> list[Document]:
        try:
            (hits,) = answer["result"]
            if not isinstance(hits, list):
                raise TypeError("the hits of a query are no list")
            # With return_scores some servers still answer bare documents.
            return [_document(hit.get("document", hit)) for hit in hits]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RetrievalError(
                f"{self.settings.url} answered, but not in Search-R1's format "
                f'({{"result": [[{{"document": {{"contents": ...}}}}]]}}): {str(answer)[:200]}'
            ) from error


def _document(found: dict[str, Any]) -> Document:
    contents = found["contents"]
    if not isinstance(contents, str):
        # Made a string, a missing text would be read as a passage that says "None".
        raise TypeError("the contents of a document are no text")
    return Document(id=str(found.get("id", "")), contents=contents)
