"""``retriever-server web``: a web search provider behind the same ``/retrieve``."""

import email.utils
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from retriever_server.corpus import Hit
from retriever_server.errors import BusyError, SettingsError
from retriever_server.info import Info, limits_of
from retriever_server.server import serve_service
from retriever_server.service import Service
from retriever_server.shard import Shard
from retriever_server.web_cache import WebCache
from retriever_server.web_provider import APIS, read_results
from retriever_server.web_settings import WebSettings

_MAX_CHARS = 2048
_MAX_ANSWER_BYTES = 8 << 20
_DEFAULT_RETRY_S = 1.0


def serve_web(settings: WebSettings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in progress and return.

    Raises:
        AddressError: The address cannot be used.
        SettingsError: The provider refuses the key, or the cache file cannot be used.
    """
    info = Info(
        index_type=f"web:{settings.provider.value}",
        metric="rank",
        count=0,
        dim=None,
        corpus_sha256="",
        encoder=None,
        shard=str(Shard()),
        limits=limits_of(settings),
    )
    service = Service(load=lambda: WebSearch(settings), info=lambda: info, max_chars=_MAX_CHARS, num_finders=2)
    serve_service(service, settings)


class WebSearch:
    """A retrieval method that asks a provider. Safe to use from several threads."""

    def __init__(self, settings: WebSettings) -> None:
        self._settings = settings
        self._api = APIS[settings.provider]
        self._cache = None if settings.cache_file is None else WebCache(settings.cache_file)
        self._threads = ThreadPoolExecutor(max_workers=settings.concurrency, thread_name_prefix="web")

    def encode(self, queries: Sequence[str]) -> list[str]:
        """Nothing to do: the provider reads text."""
        return list(queries)

    def depth(self, topk: int) -> int:
        """What the provider is asked for."""
        return topk

    def find(self, encoded: Sequence[str], topk: int) -> list[list[Hit]]:
        """Up to ``topk`` pages of each query; none for a blank one, which no provider takes.

        Raises:
            BusyError: The provider cannot be reached, or asks to come back later.
            SettingsError: It refuses the key.
            ValueError: It refuses a query, or its answer is not of its documented form.
        """
        return list(self._threads.map(lambda query: self._search(query.strip(), topk), encoded))

    def _search(self, query: str, topk: int) -> list[Hit]:
        if not query:
            return []
        name = self._settings.provider.value
        answer = None if self._cache is None else self._cache.get(name, query, topk)
        if answer is not None:
            return read_results(self._api, answer, topk)
        answer = self._ask(query, topk)
        hits = read_results(self._api, answer, topk)
        if self._cache is not None:
            # Only what could be read is kept.
            self._cache.put(name, query, topk, answer)
        return hits

    def _ask(self, query: str, topk: int) -> bytes:
        settings = self._settings
        wanted = self._api.ask(query, settings.key, topk, settings.address)
        request = urllib.request.Request(wanted.url, data=wanted.body, headers=dict(wanted.headers))
        name = settings.provider.value
        try:
            with urllib.request.urlopen(request, timeout=settings.timeout_s) as response:
                answer: bytes = response.read(_MAX_ANSWER_BYTES)
                return answer
        except urllib.error.HTTPError as error:
            # Not chained: the error holds the request's address, and with it some providers' key.
            refusal = _refusal(error, name, self._api.key_variable)
        except (OSError, http.client.HTTPException) as error:
            refusal = BusyError(f"{name} does not answer ({type(error).__name__})", "provider", _DEFAULT_RETRY_S)
        raise refusal


def _refusal(error: urllib.error.HTTPError, name: str, variable: str) -> Exception:
    if error.code in (401, 403):
        return SettingsError(f"{name} refuses the key in {variable} (HTTP {error.code}); set a valid one.")
    if error.code == 429 or error.code >= 500:
        retry_after_s = _seconds(error.headers.get("Retry-After", ""))
        return BusyError(f"{name} asks to come back later (HTTP {error.code})", "provider", retry_after_s)
    return ValueError(f"{name} refuses the query (HTTP {error.code})")


def _seconds(header: str) -> float:
    """What ``Retry-After`` says, which is a number of seconds or a date."""
    if header.strip().isdigit():
        return float(header)
    try:
        return max(email.utils.parsedate_to_datetime(header).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return _DEFAULT_RETRY_S
