"""What the retriever serves, asked before the model is loaded."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp

from verl_llds.checks import check_retriever
from verl_llds.errors import EvaluationError
from verl_llds.search.client.attempt import open_session
from verl_llds.search.settings import SearchConfig

_PATH = "/retrieve"
_TIMEOUT_S = 10.0
_UNREACHABLE = (aiohttp.ClientError, OSError, asyncio.TimeoutError)
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What a retriever says of itself at ``/info``; empty or 0 what it does not say."""

    corpus_sha256: str = ""
    """Hash of the corpus file."""
    index_type: str = ""
    """How passages are found."""
    encoder: str = ""
    """Name of the encoder."""
    count: int = 0
    """Passages searched."""

    def facts(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def retrieve_url(address: str) -> str:
    """Return the address of ``/retrieve`` of a server given with or without it."""
    bare = address.rstrip("/")
    return bare if bare.endswith(_PATH) else f"{bare}{_PATH}"


def check_served(settings: SearchConfig, expected: str | None) -> Served:
    """Ask every retriever one question and what it serves.

    Args:
        settings: the addresses.
        expected: beginning of the SHA-256 of the corpus, at least 8 digits; None takes any.

    Raises:
        RetrievalError: if one does not answer.
        EvaluationError: if they serve different corpora, or another one than expected.
    """
    check_retriever(settings)
    found = asyncio.run(_ask_all(settings.urls))
    served = found[0]
    for url, other in zip(settings.urls, found, strict=True):
        if other.corpus_sha256 != served.corpus_sha256:
            raise EvaluationError(
                f"{settings.urls[0]} serves the corpus {_name(served)} and {url} serves {_name(other)}: give "
                "retrievers of one corpus"
            )
    if expected is not None:
        _check_corpus(settings, served, expected)
    return served


def _check_corpus(settings: SearchConfig, served: Served, expected: str) -> None:
    if not served.corpus_sha256:
        raise EvaluationError(
            f"{settings.urls[0]} does not say which corpus it serves (no /info), so it cannot be told whether it is "
            f"{expected[:12]}: use retriever-server, or leave --expect-corpus out"
        )
    if not served.corpus_sha256.startswith(expected.lower()):
        raise EvaluationError(
            f"{settings.urls[0]} serves the corpus {_name(served)} ({served.count} passages, {served.index_type}), but "
            f"these questions expect {expected[:12]}: serve that corpus's index"
        )


def _name(served: Served) -> str:
    return served.corpus_sha256[:12] or "(unknown)"


async def _ask_all(urls: tuple[str, ...]) -> list[Served]:
    async with open_session(len(urls)) as http:
        return await asyncio.gather(*(_ask(http, url) for url in urls))


async def _ask(http: aiohttp.ClientSession, url: str) -> Served:
    """Return what a server says at ``/info``; nothing of one that has no such page, as Search-R1's."""
    address = f"{url.removesuffix(_PATH)}/info"
    try:
        async with http.get(address, timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as response:
            if response.status in (404, 405):
                return Served()
            response.raise_for_status()
            facts = await response.json()
            encoder = facts.get("encoder") or {}
            return Served(
                corpus_sha256=str(facts["corpus_sha256"]),
                index_type=str(facts["index_type"]),
                encoder=str(encoder.get("name", "")),
                count=int(facts["count"]),
            )
    except (
        aiohttp.ClientError,
        OSError,
        asyncio.TimeoutError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise EvaluationError(
            f"{address} does not say what it serves ({type(error).__name__}: {error}): see the retriever's log"
        ) from error
