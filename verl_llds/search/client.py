"""An async client of Search-R1's ``/retrieve``: pooled, bounded, retrying, and typed when it gives up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any, Protocol

import httpx

from verl_llds.errors import RetrievalError
from verl_llds.search.protocol import Document
from verl_llds.search.settings import SearchConfig

_FIRST_BACKOFF_S = 0.25
_LONGEST_BACKOFF_S = 8.0

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


class SearchClient:
    """One connection pool to one retriever; share it among all episodes of an event loop."""

    def __init__(self, settings: SearchConfig, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.settings = settings
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        limits = httpx.Limits(max_connections=settings.max_concurrency)
        self._http = httpx.AsyncClient(
            timeout=settings.timeout_s, limits=limits, transport=transport, trust_env=False
        )

    def __repr__(self) -> str:
        return f"SearchClient({self.settings.url!r})"

    async def search(self, query: str) -> list[Document]:
        """Return the passages for one query, best first.

        Raises:
            RetrievalError: after ``max_attempts`` failures, or at once for an answer that is no result.
        """
        body = {"queries": [query], "topk": self.settings.topk, "return_scores": True}
        async with self._slots:
            answer = await self._post(body)
        return self._documents(answer)

    async def close(self) -> None:
        """Close the pool."""
        await self._http.aclose()

    async def _post(self, body: dict[str, object]) -> Any:
        cause: Exception | None = None
        for attempt in range(self.settings.max_attempts):
            if attempt:
                await asyncio.sleep(_backoff(attempt, cause))
            try:
                response = await self._http.post(self.settings.url, json=body)
                response.raise_for_status()
                return response.json()
            except httpx.HTTPStatusError as error:
                cause = error
                if error.response.status_code not in _RETRIED_STATUS:
                    break
            except httpx.TransportError as error:
                cause = error
            except ValueError as error:
                cause = error
                break
        raise RetrievalError(
            f"no search result from {self.settings.url} after {attempt + 1} attempt(s): {cause!r}. "
            "Is the retriever running? Start it with `retriever-server serve --index DIR`, "
            "or set search.url to where it listens."
        ) from cause

    def _documents(self, answer: Any) -> list[Document]:
        try:
            (hits,) = answer["result"]
            # With return_scores some servers still answer bare documents.
            found = [hit["document"] if "document" in hit else hit for hit in hits]
            return [Document(id=str(doc.get("id", "")), contents=str(doc["contents"])) for doc in found]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RetrievalError(
                f"{self.settings.url} answered, but not in Search-R1's format "
                f'({{"result": [[{{"document": {{"contents": ...}}}}]]}}): {str(answer)[:200]}'
            ) from error


def _backoff(attempt: int, cause: Exception | None) -> float:
    """Return the seconds to wait: the server's Retry-After if it sent one, else doubling with jitter."""
    wait = min(_FIRST_BACKOFF_S * 2 ** (attempt - 1), _LONGEST_BACKOFF_S)
    if isinstance(cause, httpx.HTTPStatusError):
        header = cause.response.headers.get("Retry-After", "")
        if header.isdigit():
            wait = min(float(header), _LONGEST_BACKOFF_S)
    # Full jitter above half keeps a rollout's workers from returning in step.
    return wait * random.uniform(0.5, 1.0)
