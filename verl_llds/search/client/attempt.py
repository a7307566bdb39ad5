"""One request to one retriever, and what may go wrong with it."""

from __future__ import annotations

import asyncio
import math
import os
from datetime import datetime, timezone
from enum import Enum

import aiohttp

from verl_llds.search.client.backoff import retry_after_s
from verl_llds.search.client.wire import BadAnswerError, excerpt, read_documents, request_body
from verl_llds.search.documents import Document

MAX_ANSWER_BYTES = 16 * 2**20
"""Longest answer that is read; what Search-R1's server answers is some kilobytes."""

_MAX_REFUSAL_BYTES = 1024
"""How much is read of an answer with an error status, for the message."""

_BUSY_STATUS = frozenset({429, 503})
_REJECTED_STATUS = frozenset({400, 413, 422})


class Trouble(str, Enum):
    """What went wrong with a request."""

    UNREACHABLE = "unreachable"
    """No connection, or one that broke before the answer was complete."""
    BUSY = "busy"
    """The server is there and asks to come back later: 429 or 503."""
    TIMEOUT = "timeout"
    """No complete answer in time."""
    BAD_ANSWER = "bad_answer"
    """An answer that is no result: another 5xx status, no HTTP, not Search-R1's format, or too long."""
    REJECTED = "rejected"
    """The request's own fault, at every retriever: 400, 413 or 422."""
    WRONG_ADDRESS = "wrong_address"
    """The address's or the token's fault: a redirect, another 4xx status such as 401 or 404, or no address at all."""


class AttemptError(Exception):
    """A request that brought no passages."""

    def __init__(self, trouble: Trouble, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.trouble = trouble
        self.detail = detail
        self.retry_after_s = retry_after_s


TOKEN_VARIABLE = "RETRIEVER_TOKEN"
"""Environment variable with the token a retriever asks for; ``retriever-server`` reads its own from the same."""


def open_session(max_concurrency: int) -> aiohttp.ClientSession:
    """Return a pool of connections for `attempt`, on the running event loop."""
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=max_concurrency),
        # A few compressed bytes may unpack to gigabytes, which no limit on what is read holds back.
        auto_decompress=False,
        headers={"Accept-Encoding": "identity", **({"Authorization": f"Bearer {token}"} if token else {})},
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def attempt(
    http: aiohttp.ClientSession, url: str, *, query: str, topk: int, timeout_s: float
) -> tuple[Document, ...]:
    """Ask a retriever once and return the passages, best first.

    Raises:
        AttemptError: for whatever goes wrong within ``timeout_s``.
    """
    # By default aiohttp rounds timeouts up to a whole second, beyond what is left of the query's time.
    timeout = aiohttp.ClientTimeout(total=timeout_s, ceil_threshold=math.inf)
    try:
        async with http.post(url, json=request_body(query, topk), timeout=timeout, allow_redirects=False) as response:
            if not 200 <= response.status < 300:
                raise await _refusal(response)
            return read_documents(await _read_body(response), topk)
    except asyncio.TimeoutError as error:
        raise AttemptError(Trouble.TIMEOUT, f"no complete answer within {timeout_s:.3g} s") from error
    except (BadAnswerError, aiohttp.ClientResponseError) as error:
        raise AttemptError(Trouble.BAD_ANSWER, str(error)) from error
    except aiohttp.InvalidURL as error:
        raise AttemptError(Trouble.WRONG_ADDRESS, f"no usable address: {error}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise AttemptError(Trouble.UNREACHABLE, f"{type(error).__name__}: {error}") from error


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise BadAnswerError(f"the answer has Content-Encoding {encoding!r}, though it was asked for plain")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            # Given back with an answer half read, the connection is closed.
            raise BadAnswerError(f"the answer is longer than the limit of {MAX_ANSWER_BYTES // 2**20} MiB")
    return bytes(body)


async def _refusal(response: aiohttp.ClientResponse) -> AttemptError:
    status = response.status
    try:
        text = excerpt(await response.content.read(_MAX_REFUSAL_BYTES))
    # The status says enough without a body.
    except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
        text = "no body"
    location = response.headers.get("Location")
    detail = f"HTTP {status}, {text}" if location is None else f"HTTP {status} to {location}, {text}"
    if status in _BUSY_STATUS:
        header = response.headers.get("Retry-After", "")
        return AttemptError(Trouble.BUSY, detail, retry_after_s(header, datetime.now(timezone.utc)))
    if status in _REJECTED_STATUS:
        return AttemptError(Trouble.REJECTED, detail)
    return AttemptError(Trouble.BAD_ANSWER if status >= 500 else Trouble.WRONG_ADDRESS, detail)
