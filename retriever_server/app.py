"""The HTTP face: Search-R1's ``/retrieve``, and what an operator asks of a service."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException

from retriever_server.auth import is_authorized
from retriever_server.batching import Batcher
from retriever_server.errors import NotReadyError
from retriever_server.info import Info
from retriever_server.json_response import JSON, busy, failure
from retriever_server.metrics import Metrics
from retriever_server.retrieve import DEADLINE_HEADER, Retrieve
from retriever_server.service_settings import ServiceSettings
from retriever_server.wire import ErrorResponse, RetrieveRequest, RetrieveResponse

_PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_REQUEST_BODY = {"required": True, "content": {"application/json": {"schema": RetrieveRequest.model_json_schema()}}}
_DEADLINE = {
    "name": DEADLINE_HEADER,
    "in": "header",
    "required": False,
    "description": "Milliseconds after which the answer is worthless; 503 then, or at once if that is foreseen.",
    "schema": {"type": "integer", "minimum": 1},
}


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok", "ready"]


def create_app(info: Callable[[], Info], batcher: Batcher, settings: ServiceSettings, metrics: Metrics) -> FastAPI:
    """The service as an ASGI application; its lifespan starts and stops ``batcher``.

    Args:
        info: what the service says about itself; it is called once the service is ready.
        batcher: what answers the queries.
        settings: the limits of the service.
        metrics: what ``batcher`` counts in.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await batcher.start()
        yield
        await batcher.close()

    # The interactive pages would make the browser fetch scripts from the network.
    app = FastAPI(title="retriever-server", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_exception_handler(StarletteHTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_bug)
    _add_probes(app, batcher)
    for_clients = _checks(settings.token)
    _add_operations(app, info, batcher, metrics, for_clients)
    retrieve = Retrieve(batcher, settings, metrics)

    @app.post(
        "/retrieve",
        dependencies=for_clients,
        response_class=JSON,
        responses={200: {"model": RetrieveResponse}, **_errors(401, 408, 413, 422, 500, 503)},
        openapi_extra={"requestBody": _REQUEST_BODY, "parameters": [_DEADLINE]},
    )
    async def search(request: Request) -> Response:
        """Search for every query."""
        return await retrieve(request)

    return app


def _add_probes(app: FastAPI, batcher: Batcher) -> None:
    """What an orchestrator asks; it needs no token."""

    @app.get("/health", response_model=Health, response_class=JSON)
    async def health() -> Response:
        """The process answers."""
        return JSON({"status": "ok"})

    @app.get("/ready", response_model=Health, response_class=JSON, responses=_errors(503))
    async def ready() -> Response:
        """The index is loaded and has answered a query, and the service does not stop."""
        if not batcher.ready:
            return busy(NotReadyError("the index is still loading, or the service stops", "loading"))
        return JSON({"status": "ready"})


def _add_operations(
    app: FastAPI, info: Callable[[], Info], batcher: Batcher, metrics: Metrics, for_clients: list[Any]
) -> None:
    @app.get("/info", dependencies=for_clients, response_model=Info, response_class=JSON, responses=_errors(401, 503))
    async def describe() -> Response:
        """What is served and under which limits."""
        try:
            return JSON(info().model_dump(mode="json"))
        except NotReadyError as error:
            return busy(error)

    @app.get(
        "/metrics",
        dependencies=for_clients,
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_errors(401)},
    )
    async def measure() -> Response:
        """Prometheus metrics."""
        return Response(metrics.render(), headers={"Content-Type": _PROMETHEUS_TEXT})

    @app.get("/openapi.json", dependencies=for_clients, include_in_schema=False)
    async def schema() -> Response:
        return JSON(app.openapi())


def _checks(token: str | None) -> list[Any]:
    """What is looked at before a client's request is."""
    if token is None:
        return []
    # The second one only says so in the schema.
    return [Depends(_Authorized(token)), Depends(HTTPBearer(auto_error=False))]


class _Authorized:
    """Raises 401 for a request without the token."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def __call__(self, request: Request) -> None:
        if not is_authorized(request.headers.get("authorization"), self._token):
            raise HTTPException(
                401, "send the service's token as Authorization: Bearer TOKEN", headers={"WWW-Authenticate": "Bearer"}
            )


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorResponse} for status in statuses}


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return failure(error.status_code, str(error.detail), dict(error.headers or {}))


async def _on_bug(request: Request, error: Exception) -> Response:
    return failure(500, "internal error; see the server's log", {})
