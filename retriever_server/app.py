"""The HTTP face: Search-R1's ``/retrieve``, and what an operator asks of a service."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from retriever_server.batching import Batcher
from retriever_server.corpus import Hit
from retriever_server.errors import NotReadyError, OverloadedError, SearchFailedError
from retriever_server.manifest import Manifest
from retriever_server.settings import ServeSettings

DEFAULT_TOPK = 3
MAX_BODY_BYTES = 16 << 20
_RETRY_AFTER = {"Retry-After": "1"}
# nginx's number for a client that left; nobody reads it.
_CLIENT_LEFT = 499


def _encodable(value: object) -> object:
    # A policy samples any tokens: half a surrogate pair is legal in JSON but not in UTF-8.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


class RetrieveRequest(BaseModel):
    """Search-R1's request."""

    queries: list[Annotated[str, BeforeValidator(_encodable)]]
    """One search each; an empty string is a query like any other."""

    topk: Annotated[int, Field(ge=1)] | None = None
    """Passages per query; absent or null means 3. More than exist, or than the limit, gives what there is."""

    return_scores: bool = False
    """Whether each passage comes with its score."""


class Document(BaseModel):
    """One passage."""

    id: str
    contents: str


class ScoredDocument(BaseModel):
    """One passage and its score."""

    document: Document
    score: float


class RetrieveResponse(BaseModel):
    """One list per query, in order, best passage first."""

    result: list[list[ScoredDocument]] | list[list[Document]]


class ErrorResponse(BaseModel):
    """Every answer that is not 2xx."""

    error: str


class JSON(Response):
    """A JSON answer written by orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of ``content``."""
        return orjson.dumps(content)


def create_app(manifest: Manifest, batcher: Batcher, settings: ServeSettings) -> FastAPI:
    """The service as an ASGI application; its lifespan starts and stops ``batcher``."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await batcher.start()
        yield
        await batcher.close()

    # The interactive pages would make the browser fetch scripts from the network; /openapi.json stays.
    app = FastAPI(title="retriever-server", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_exception_handler(StarletteHTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_bug)

    @app.get("/health")
    async def health() -> JSON:
        """The process answers."""
        return JSON({"status": "ok"})

    @app.get("/ready", responses={503: {"model": ErrorResponse}})
    async def ready() -> JSON:
        """Queries are answered now."""
        if not batcher.ready:
            raise HTTPException(503, "the index is still loading", headers=_RETRY_AFTER)
        return JSON({"status": "ready"})

    @app.get("/info")
    async def info() -> JSON:
        """What is served and under which limits."""
        limits = {
            "topk": settings.max_topk,
            "queries": settings.max_queue,
            "body_bytes": MAX_BODY_BYTES,
        }
        return JSON({**asdict(manifest), "limits": limits})

    @app.post(
        "/retrieve",
        responses={
            200: {"model": RetrieveResponse},
            **{status: {"model": ErrorResponse} for status in (413, 422, 500, 503)},
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": RetrieveRequest.model_json_schema()}},
            }
        },
    )
    async def retrieve(request: Request) -> Response:
        """Search for every query."""
        try:
            asked = _parse(await _read_body(request), settings)
            topk = min(asked.topk or DEFAULT_TOPK, settings.max_topk)
            found = await _unless_client_leaves(request, batcher, asked.queries, topk)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_LEFT)
        except (NotReadyError, OverloadedError) as error:
            # 503, not 429: verl's client retries it and gives up on 4xx.
            raise HTTPException(503, str(error), headers=_RETRY_AFTER) from error
        except SearchFailedError as error:
            raise HTTPException(500, f"{error}; see the server's log") from error
        return JSON({"result": [[_document(hit, asked.return_scores) for hit in hits] for hits in found]})

    return app


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes; send fewer queries")
    return bytes(body)


def _parse(body: bytes, settings: ServeSettings) -> RetrieveRequest:
    try:
        # Not orjson: it refuses half surrogate pairs.
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, f"the body is not JSON: {_printable(error)}") from error
    try:
        asked = RetrieveRequest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"])) or "body"
        raise HTTPException(422, f"{field}: {first['msg']}") from error
    if len(asked.queries) > settings.max_queue:
        raise HTTPException(422, f"queries: more than {settings.max_queue}; send fewer at a time")
    return asked


async def _unless_client_leaves(
    request: Request, batcher: Batcher, queries: Sequence[str], topk: int
) -> list[list[Hit]]:
    """Search, but take the queries out of the queue as soon as nobody waits for them.

    Raises:
        ClientDisconnect: The client left.
    """
    if not queries:
        return []
    search = asyncio.ensure_future(batcher.submit(queries, topk))
    # The body has been read, so the next thing to receive is the disconnect.
    left = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((search, left), return_when=asyncio.FIRST_COMPLETED)
        if not search.done():
            raise ClientDisconnect
        return search.result()
    finally:
        search.cancel()
        left.cancel()


def _document(hit: Hit, with_score: bool) -> object:
    document = orjson.Fragment(hit.document)
    return {"document": document, "score": hit.score} if with_score else document


def _printable(error: Exception) -> str:
    return str(error).encode("utf-8", "replace").decode()


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return JSON({"error": error.detail}, status_code=error.status_code, headers=dict(error.headers or {}))


async def _on_bug(request: Request, error: Exception) -> Response:
    return JSON({"error": "internal error; see the server's log"}, status_code=500)
