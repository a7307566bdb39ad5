"""Bodies of requests, which count until they are parsed."""

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from retriever_server import reading
from retriever_server.errors import OverloadedError


def request(body: bytes) -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


async def test_a_body_counts_until_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_MAX_BYTES_TOGETHER", 100)
    bodies = reading.BodyReader(timeout_s=10.0)

    async def read(size: int) -> int:
        async with bodies.read(request(b"x" * size)) as body:
            await asyncio.sleep(0)
            return len(body)

    async with bodies.read(request(b"x" * 60)) as first:
        assert first == b"x" * 60
        with pytest.raises(OverloadedError):
            await read(60)
        assert await read(40) == 40
    assert await read(100) == 100
