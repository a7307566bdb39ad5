"""Reading a request's body: bounded in bytes, in time, and over all requests together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import HTTPException
from starlette.requests import Request

from retriever_server.errors import OverloadedError

MAX_BODY_BYTES = 16 << 20
# Of all bodies being read or waiting to be parsed, so that many large ones at once cannot take the memory.
_MAX_BYTES_TOGETHER = 256 << 20


class BodyReader:
    """Reads bodies for one event loop."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._num_bytes = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytearray]:
        """The body of a request; it counts until the block ends.

        Raises:
            HTTPException: 408 if it takes too long, 413 if it is too large.
            OverloadedError: Too many large bodies are here already.
            ClientDisconnect: The client left.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > MAX_BODY_BYTES:
            raise _too_large()
        body = bytearray()
        try:
            await self._wait_for(body, request)
            yield body
        finally:
            self._num_bytes -= len(body)

    async def _wait_for(self, body: bytearray, request: Request) -> None:
        try:
            await asyncio.wait_for(self._fill(body, request), self._timeout_s)
        except asyncio.TimeoutError as error:
            raise HTTPException(
                408, f"the body did not arrive within {self._timeout_s:.3g} s", headers={"Connection": "close"}
            ) from error

    async def _fill(self, body: bytearray, request: Request) -> None:
        async for chunk in request.stream():
            body += chunk
            self._num_bytes += len(chunk)
            if len(body) > MAX_BODY_BYTES:
                raise _too_large()
            if self._num_bytes > _MAX_BYTES_TOGETHER:
                raise OverloadedError("too many large requests at once; try again shortly", "body_bytes")


def _too_large() -> HTTPException:
    # The rest of the body is not worth reading.
    return HTTPException(
        413,
        f"the body is larger than {MAX_BODY_BYTES} bytes; send fewer queries",
        headers={"Connection": "close"},
    )
