"""What is asked and answered over HTTP: Search-R1's ``/retrieve`` and the dialects of its descendants.

Search-R1 (``search_r1/search/retrieval_server.py``) posts ``{"queries": [...], "topk": 3, "return_scores": true}``;
slime and ASearcher read bare documents; SkyRL posts a single ``query``. Every answer is ``{"result": [[...], ...]}``,
one list per query, in order. Their clients all send ``return_scores``; absent, it is false, as in Search-R1's schema.
"""

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictStr, ValidationError

from retriever_server.corpus import Hit
from retriever_server.errors import RequestError

DEFAULT_TOPK = 3
# More than any request needs: what stands between commas takes 50 bytes and more once it is parsed, and while a body is
# parsed nothing else runs.
_MAX_COMMAS = 1 << 20
# What a passage and its score cost beside the text: two objects, two references.
_PASSAGE_BYTES = 80


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

    queries: Annotated[list[_Query], Field(fail_fast=True)] | None = None
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
    """The passages of one query, best first. Either form is written when it is sent."""

    documents: tuple[bytes, ...]
    """The passages as JSON."""

    scores: tuple[float, ...]
    """Their scores, finite."""

    @property
    def scored(self) -> bytes:
        """A JSON list of passages and scores."""
        return orjson.dumps(_form(self, with_scores=True))

    @property
    def bare(self) -> bytes:
        """A JSON list of passages."""
        return orjson.dumps(_form(self, with_scores=False))

    @property
    def num_bytes(self) -> int:
        """About what it takes in memory."""
        return sum(map(len, self.documents)) + _PASSAGE_BYTES * len(self.documents)


def parse_request(body: bytes | bytearray, *, max_queries: int) -> RetrieveRequest:
    """Read the body of a request.

    Raises:
        RequestError: It is no request; the message names the field.
    """
    if body.count(b",") > _MAX_COMMAS:
        raise RequestError(f"body: more than {_MAX_COMMAS} commas; send fewer queries at a time")
    try:
        # Not orjson: it refuses half surrogate pairs.
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {_printable(error)}") from error
    # Before anything looks at each of them: a body of 16 MB can hold millions.
    if isinstance(value, dict) and isinstance(value.get("queries"), list) and len(value["queries"]) > max_queries:
        raise RequestError(f"queries: more than {max_queries}; send fewer at a time")
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
    return asked


def make_answer(hits: Sequence[Hit]) -> Answer:
    """The answer to one query.

    Raises:
        ValueError: A score is not a finite number, which JSON cannot say.
    """
    if not all(math.isfinite(hit.score) for hit in hits):
        raise ValueError("a score is not a finite number")
    return Answer(tuple(hit.document for hit in hits), tuple(hit.score for hit in hits))


def write_response(answers: Sequence[Answer], *, with_scores: bool) -> bytes:
    """The body of a response."""
    return orjson.dumps({"result": [_form(answer, with_scores=with_scores) for answer in answers]})


def _form(answer: Answer, *, with_scores: bool) -> list[Any]:
    documents = [orjson.Fragment(document) for document in answer.documents]
    if not with_scores:
        return documents
    return [{"document": document, "score": score} for document, score in zip(documents, answer.scores, strict=True)]


def _printable(error: Exception) -> str:
    return str(error).encode("utf-8", "replace").decode()
