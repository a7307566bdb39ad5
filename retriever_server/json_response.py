"""Answers in JSON, the unhappy ones included."""

import math
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Response
from fastapi.responses import JSONResponse

from retriever_server.errors import BusyError

_MAX_RETRY_AFTER_S = 60


class JSON(JSONResponse):
    """A JSON answer written by orjson."""

    def render(self, content: Any) -> bytes:
        """The bytes of ``content``; bytes are JSON already."""
        return content if isinstance(content, bytes) else orjson.dumps(content)


def failure(status: int, message: str, headers: Mapping[str, str]) -> Response:
    """An answer that is not 2xx."""
    return JSON({"error": message}, status_code=status, headers=dict(headers))


def busy(error: BusyError) -> Response:
    """The answer to a request that can succeed later: 503, since verl's client retries that and gives up on 429."""
    seconds = min(max(math.ceil(error.retry_after_s), 1), _MAX_RETRY_AFTER_S)
    return failure(503, str(error), {"Retry-After": str(seconds)})
