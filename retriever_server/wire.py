"""What is asked and answered over HTTP: Search-R1's ``/retrieve`` and the dialects of its descendants.

Search-R1 (``search_r1/search/retrieval_server.py``) posts ``{"queries": [...], "topk": 3, "return_scores": true}``;
slime and ASearcher read bare documents; SkyRL posts a single ``query``. Every answer is ``{"result": [[...], ...]}``,
one list per query, in order. Their clients all send ``return_scores``; absent, it is false, as in Search-R1's schema.
"""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictStr, ValidationError

from retriever_server.corpus import Hit
from retriever_server.errors import RequestError

DEFAULT_TOPK = 3


def _encodable(value: object) -> object:
    # A policy samples any tokens: half a surrogate pair is legal in JSON but not in UTF-8.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _whole(value: object) -> object:
    # Pydantic takes true for 1 and "3" for 3. JSON Schema calls 3.0 an integer.
    if isinstance(value, bool | str):
        raise ValueError("Input should be a valid integer")
    return value


_Query = Annotated[StrictStr, BeforeValidator(_encodable)]


def _either_field(schema: dict[str, Any]) -> None:
    absent = {"type": "null"}
    properties = schema["properties"]
    properties["queries"] = {"type": ["array", "null"], "items": {"type": "string"}}
    properties["query"] = {"type": ["string", "null"]}
    properties["topk"] = {"type": ["integer", "null"], "minimum": 1, "default": None}
    schema["oneOf"] = [
        {"required": ["queries"], "properties": {"queries": {"type": "array"}, "query": absent}},
        {"required": ["query"], "properties": {"query": {"type": "string"}, "queries": absent}},
    ]


class RetrieveRequest(BaseModel):
    """A request: ``queries`` or ``query``. Fields it does not know are ignored."""

    model_config = ConfigDict(json_schema_extra=_either_field)

    queries: list[_Query] | None = None
    """One search each; an empty string is a query like any other."""

    query: _Query | None = None
    """One search, instead of ``queries``; it is answered as a list of one."""

    topk: Annotated[int, Field(ge=1), BeforeValidator(_whole)] | None = None
    """Passages per query; absent or null means 3. More than exist, or than the limit, gives what there is."""

    return_scores: StrictBool = False
    """Whether each passage comes with its score."""

    @property
    def texts(self) -> list[str]:
        """The queries, however they were given."""
        if self.queries is not None:
            return self.queries
        assert self.query is not None
        return [self.query]


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


class Answer(NamedTuple):
    """The passages of one query in both forms, as JSON lists."""

    scored: bytes
    bare: bytes

    @property
    def num_bytes(self) -> int:
        """Size of both forms."""
        return len(self.scored) + len(self.bare)


def parse_request(body: bytes, *, max_queries: int) -> RetrieveRequest:
    """Read the body of a request.

    Raises:
        RequestError: It is no request; the message names the field.
    """
    try:
        # Not orjson: it refuses half surrogate pairs.
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {_printable(error)}") from error
    try:
        asked = RetrieveRequest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"])) or "body"
        raise RequestError(f"{field}: {first['msg']}") from error
    if asked.queries is None and asked.query is None:
        raise RequestError("queries: Field required (or query, for a single one)")
    if asked.queries is not None and asked.query is not None:
        raise RequestError("query: given beside queries; send one of the two")
    if len(asked.texts) > max_queries:
        raise RequestError(f"queries: more than {max_queries}; send fewer at a time")
    return asked


def write_answer(hits: Sequence[Hit]) -> Answer:
    """The passages of one query as JSON.

    Raises:
        ValueError: A score is not a finite number, which JSON cannot say.
    """
    if not all(math.isfinite(hit.score) for hit in hits):
        raise ValueError("a score is not a finite number")
    fragments = [orjson.Fragment(hit.document) for hit in hits]
    scored = [{"document": document, "score": hit.score} for document, hit in zip(fragments, hits, strict=True)]
    return Answer(orjson.dumps(scored), orjson.dumps(fragments))


def write_response(answers: Iterable[Answer], *, with_scores: bool) -> bytes:
    """The body of a response."""
    lists = (answer.scored if with_scores else answer.bare for answer in answers)
    return b'{"result":[' + b",".join(lists) + b"]}"


def _printable(error: Exception) -> str:
    return str(error).encode("utf-8", "replace").decode()
