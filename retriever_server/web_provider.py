"""Web search providers: how each is asked, and what its answer says. Functions of values; nothing here connects.

The addresses, headers and fields are those of the providers' own documentation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import urlencode

import orjson

from retriever_server.corpus import Hit


class Provider(Enum):
    """Who searches."""

    SERPER = "serper"
    """Google's results by serper.dev."""

    SERPAPI = "serpapi"
    """Google's results by serpapi.com."""

    BRAVE = "brave"
    """Brave's own index."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WebRequest:
    """One HTTP request to a provider."""

    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    """Makes it a POST."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Api:
    """One provider's interface."""

    url: str
    """Where it listens, unless told otherwise."""

    key_variable: str
    """Environment variable with the key."""

    max_topk: int
    """Results that one request can bring."""

    ask: Callable[[str, str, int, str], WebRequest]
    """Makes a request of a query, a key, how many results are wanted, and where the provider listens."""

    results: tuple[str, ...]
    """Path of keys to the list of results; a list that is not there is an empty one."""

    link: str
    snippet: str
    """Keys of a result's address and text; its title is ``title`` everywhere."""


def read_results(api: Api, answer: bytes, topk: int) -> list[Hit]:
    """The results of an answer, best first; the score is 1 / rank, since providers give none.

    Raises:
        ValueError: The answer is not JSON of this provider's form.
    """
    found: Any = orjson.loads(answer)
    for key in api.results:
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
        found = found.get(key, [] if key == api.results[-1] else {})
    if not isinstance(found, list):
        raise ValueError(f"{'.'.join(api.results)} is no list")
    pages = [page for page in found if isinstance(page, dict) and page.get(api.link)]
    return [_hit(api, page, rank) for rank, page in enumerate(pages[:topk], start=1)]


def _hit(api: Api, page: Mapping[str, Any], rank: int) -> Hit:
    title = " ".join(str(page.get("title") or "").split())
    contents = f"{title}\n{page.get(api.snippet) or ''}"
    return Hit(orjson.dumps({"id": str(page[api.link]), "contents": contents}), 1.0 / rank)


def _ask_serper(query: str, key: str, topk: int, url: str) -> WebRequest:
    headers = {"X-API-KEY": key, "Content-Type": "application/json"}
    return WebRequest(url=url, headers=headers, body=orjson.dumps({"q": query, "num": topk}))


def _ask_serpapi(query: str, key: str, topk: int, url: str) -> WebRequest:
    values = {"engine": "google", "q": query, "num": topk, "api_key": key}
    return WebRequest(url=f"{url}?{urlencode(values)}", headers={})


def _ask_brave(query: str, key: str, topk: int, url: str) -> WebRequest:
    headers = {"X-Subscription-Token": key, "Accept": "application/json"}
    return WebRequest(url=f"{url}?{urlencode({'q': query, 'count': topk})}", headers=headers)


APIS: Mapping[Provider, Api] = {
    Provider.SERPER: Api(
        url="https://google.serper.dev/search",
        key_variable="SERPER_API_KEY",
        max_topk=100,
        ask=_ask_serper,
        results=("organic",),
        link="link",
        snippet="snippet",
    ),
    Provider.SERPAPI: Api(
        url="https://serpapi.com/search",
        key_variable="SERPAPI_API_KEY",
        max_topk=100,
        ask=_ask_serpapi,
        results=("organic_results",),
        link="link",
        snippet="snippet",
    ),
    Provider.BRAVE: Api(
        url="https://api.search.brave.com/res/v1/web/search",
        key_variable="BRAVE_API_KEY",
        max_topk=20,
        ask=_ask_brave,
        results=("web", "results"),
        link="url",
        snippet="description",
    ),
}
"""How each is spoken to."""
