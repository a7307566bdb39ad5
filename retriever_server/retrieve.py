"""``POST /retrieve``: from a request's bytes to an answer's."""

import asyncio
import time

from fastapi import HTTPException, Request, Response
from starlette.requests import ClientDisconnect

from retriever_server.batching import Batcher
from retriever_server.errors import BusyError, OverloadedError, RequestError, SearchFailedError
from retriever_server.json_response import JSON, busy, failure
from retriever_server.limits import RateLimit
from retriever_server.metrics import Metrics
from retriever_server.reading import BodyReader
from retriever_server.service_settings import ServiceSettings
from retriever_server.wire import DEFAULT_TOPK, Answer, RetrieveRequest, parse_request, write_response

DEADLINE_HEADER = "X-Deadline-Ms"
# Parsing a larger body, or writing more passages, would hold up the event loop.
_MAX_INLINE_BYTES = 1 << 16
_MAX_INLINE_PASSAGES = 512
_MAX_DEADLINE_DIGITS = 9
# nginx's number for a client that left; nobody reads it.
_CLIENT_LEFT = 499


class Retrieve:
    """The endpoint, for one event loop."""

    def __init__(self, batcher: Batcher, settings: ServiceSettings, metrics: Metrics) -> None:
        self._batcher = batcher
        self._settings = settings
        self._metrics = metrics
        self._bodies = BodyReader(timeout_s=settings.read_timeout_s)
        # Parsed, 16 MB can be 20 times as much; and the interpreter parses one at a time anyway.
        self._parsing = asyncio.Semaphore(1)
        self._rate_limit = RateLimit(settings.max_rps)

    async def __call__(self, request: Request) -> Response:
        """Answer a request, whatever it is."""
        start = time.perf_counter()
        self._metrics.in_flight.inc()
        status = 500
        try:
            response = await self._respond(request)
            status = response.status_code
            return response
        finally:
            self._metrics.in_flight.dec()
            self._metrics.requests.labels(str(status)).inc()
            self._metrics.request_seconds.observe(time.perf_counter() - start)

    async def _respond(self, request: Request) -> Response:
        try:
            return await self._answer(request)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_LEFT)
        except RequestError as error:
            return failure(422, str(error), {})
        except HTTPException as error:
            return failure(error.status_code, str(error.detail), error.headers or {})
        except BusyError as error:
            self._metrics.rejects.labels(error.reason).inc()
            return busy(error)
        except SearchFailedError as error:
            return failure(500, f"{error}; see the server's log", {})

    async def _answer(self, request: Request) -> Response:
        arrived = time.monotonic()
        self._check_rate(request, arrived)
        deadline_s = _read_deadline(request.headers.get(DEADLINE_HEADER))
        async with self._bodies.read(request) as body:
            asked = await self._parse(body)
        topk = self._topk(asked)
        if deadline_s is not None:
            deadline_s = max(deadline_s - (time.monotonic() - arrived), 0.001)
        answers = await self._search(request, asked.texts, topk, deadline_s)
        if len(answers) * topk <= _MAX_INLINE_PASSAGES:
            return JSON(write_response(answers, with_scores=asked.return_scores))
        return JSON(await asyncio.to_thread(write_response, answers, with_scores=asked.return_scores))

    def _check_rate(self, request: Request, now: float) -> None:
        wait_s = self._rate_limit.wait_s(request.client.host if request.client else "", now)
        if wait_s:
            raise OverloadedError(
                f"more than {self._settings.max_rps:g} requests a second from one address", "rate_limit", wait_s
            )

    async def _parse(self, body: bytearray) -> RetrieveRequest:
        max_queries = self._settings.max_queue
        if len(body) <= _MAX_INLINE_BYTES:
            return parse_request(body, max_queries=max_queries)
        async with self._parsing:
            return await asyncio.to_thread(parse_request, body, max_queries=max_queries)

    def _topk(self, asked: RetrieveRequest) -> int:
        """Passages per query.

        Raises:
            RequestError: They are too many for one answer.
        """
        topk, limit = min(asked.topk or DEFAULT_TOPK, self._settings.max_topk), self._settings.max_passages
        if len(asked.texts) * topk > limit:
            raise RequestError(
                f"queries: {len(asked.texts)} with topk {topk} ask for more than {limit} passages; "
                "send fewer at a time, or a smaller topk"
            )
        return topk

    async def _search(self, request: Request, queries: list[str], topk: int, deadline_s: float | None) -> list[Answer]:
        """Search, but not for longer than the client waits.

        Raises:
            ClientDisconnect: The client left.
        """
        ticket = self._batcher.admit(queries, topk, deadline_s)
        if ticket.future.done():
            return ticket.future.result()
        # The body has been read, so the next thing to receive is the disconnect.
        left = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait((ticket.future, left), return_when=asyncio.FIRST_COMPLETED)
            if not ticket.future.done():
                raise ClientDisconnect
            return ticket.future.result()
        finally:
            left.cancel()
            self._batcher.withdraw(ticket)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _read_deadline(header: str | None) -> float | None:
    """Seconds that a request may take.

    Raises:
        RequestError: The header is no positive whole number.
    """
    if header is None:
        return None
    if not header.isascii() or not header.isdecimal() or len(header) > _MAX_DEADLINE_DIGITS or not int(header):
        raise RequestError(f"{DEADLINE_HEADER}: Input should be a positive number of milliseconds")
    return int(header) / 1000
