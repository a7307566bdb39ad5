"""Search-R1's wire format: what is posted to ``/retrieve`` and what an answer must look like.

Source: ``search_r1/search/retrieval_server.py`` of https://github.com/PeterGriffinJin/Search-R1.
"""

from __future__ import annotations

import json
from typing import Any

from verl_llds.search.documents import Document
from verl_llds.search.encodable import encodable

ANSWER_FORMAT = '{"result": [[{"document": {"id": ..., "contents": ...}, "score": ...}]]}'
"""What a retriever answers to one query."""

_EXCERPT_BYTES = 200
"""How much of an answer a message shows."""


class BadAnswerError(ValueError):
    """An answer that is no result in Search-R1's format."""


def request_body(query: str, topk: int) -> dict[str, object]:
    """Return the JSON value that asks for the passages of one query."""
    return {"queries": [encodable(query)], "topk": topk, "return_scores": True}


def read_documents(body: bytes, topk: int) -> tuple[Document, ...]:
    """Return the passages in an answer to one query, best first, at most ``topk`` of them.

    Raises:
        BadAnswerError: if the body is no JSON, or holds no result of exactly one query.
    """
    try:
        value = json.loads(body)
        (hits,) = value["result"]
        if not isinstance(hits, list):
            raise TypeError("the hits of a query are no list")
        return tuple(_document(hit) for hit in hits[:topk])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BadAnswerError(
            f"the answer is not in Search-R1's format {ANSWER_FORMAT} ({type(error).__name__}: {error}): "
            f"{excerpt(body)}"
        ) from error


def excerpt(body: bytes) -> str:
    """Return the beginning of a body, quoted for a message."""
    return repr(body[:_EXCERPT_BYTES].decode(errors="replace"))


def _document(hit: Any) -> Document:
    # Some servers answer bare documents although scores were asked for.
    found = hit.get("document", hit)
    contents, document_id = found["contents"], found.get("id")
    if not isinstance(contents, str):
        # Made a string, a missing text would be read as a passage that says "None".
        raise TypeError("the contents of a document are no text")
    return Document(id="" if document_id is None else encodable(str(document_id)), contents=encodable(contents))
