"""The completions of an OpenAI-compatible server, over HTTP: https://platform.openai.com/docs/api-reference/completions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp

from verl_llds.errors import EvaluationError
from verl_llds.search.client.backoff import backoff_s

_MAX_ATTEMPTS = 4
_BUSY = frozenset({429, 502, 503, 504})
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=600)
_EXCERPT = 300


class CompletionsServer:
    """The pages ``/v1/models`` and ``/v1/completions`` of one server."""

    def __init__(self, address: str) -> None:
        """Take the address, with or without ``/v1``; call it on the event loop that asks."""
        bare = address.rstrip("/")
        self.url = bare if bare.endswith("/v1") else f"{bare}/v1"
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=_TIMEOUT)

    async def served_name(self, model: str) -> str:
        """Return what the server calls a model: its own name if it serves one model only.

        Raises:
            EvaluationError: if it serves others.
        """
        async with self._http.get(f"{self.url}/models") as response:
            answer = await _read(response)
        names = [str(entry.get("id")) for entry in answer.get("data", [])]
        if model in names or len(names) == 1:
            return model if model in names else names[0]
        raise EvaluationError(
            f"{self.url} serves {', '.join(names) or 'no model'}, not {model}: start it with --served-model-name "
            f"{model}"
        )

    async def post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer, which has a choice, after a few tries where the server is busy or away.

        Raises:
            EvaluationError: if it refuses, or answers something else.
        """
        for number in range(1, _MAX_ATTEMPTS + 1):
            try:
                async with self._http.post(f"{self.url}/completions", json=body) as response:
                    if response.status not in _BUSY or number == _MAX_ATTEMPTS:
                        return self._with_choice(await _read(response))
            except (aiohttp.ClientConnectionError, asyncio.TimeoutError):
                if number == _MAX_ATTEMPTS:
                    raise
            await asyncio.sleep(backoff_s(number, 0.0))
        raise AssertionError("the last try returns or raises")

    async def stream(self, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Yield the choice of each event as it comes.

        Raises:
            EvaluationError: if the server refuses, or stops with an error.
        """
        async with self._http.post(f"{self.url}/completions", json={**body, "stream": True}) as response:
            if response.status != 200:
                await _read(response)
            async for line in response.content:
                name, _, data = line.decode().strip().partition(":")
                # Other lines are empty, comments that keep the connection alive, or names of events.
                if name != "data" or data.strip() == "[DONE]":
                    continue
                event = json.loads(data)
                if "error" in event:
                    raise EvaluationError(f"{self.url}/completions stopped: {str(event['error'])[:_EXCERPT]}")
                # The last event may have the usage alone.
                for choice in event.get("choices") or ():
                    yield choice

    async def close(self) -> None:
        """Close the connections; the server goes on."""
        await self._http.close()

    def _with_choice(self, answer: dict[str, Any]) -> dict[str, Any]:
        choices = answer.get("choices")
        if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
            raise EvaluationError(f"{self.url}/completions answered without choices: {str(answer)[:_EXCERPT]}")
        return answer


async def _read(response: aiohttp.ClientResponse) -> dict[str, Any]:
    text = await response.text()
    if response.status != 200:
        raise EvaluationError(f"{response.url} answered HTTP {response.status}: {text[:_EXCERPT]}")
    try:
        value = json.loads(text)
    except ValueError as error:
        raise EvaluationError(f"{response.url} answered no JSON: {text[:_EXCERPT]}") from error
    if not isinstance(value, dict):
        raise EvaluationError(f"{response.url} answered no JSON object: {text[:_EXCERPT]}")
    return value
