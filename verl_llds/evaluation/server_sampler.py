"""An OpenAI-compatible server of completions: ids in, ids out, or not at all.

A server that gives back text alone is refused: encoded again, the text of a turn may be other ids than were sampled,
and the policy would read another beginning of its next turn than it wrote. vLLM gives ids with ``return_token_ids``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import aiohttp

from verl_llds.errors import EvaluationError
from verl_llds.evaluation.sampler import Watch
from verl_llds.evaluation.settings import Decoding
from verl_llds.search.client.backoff import backoff_s
from verl_llds.search.trajectory import Generation

_MAX_ATTEMPTS = 4
_BUSY = frozenset({429, 502, 503, 504})
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=600)
_EXCERPT = 300


class ServerSampler:
    """A server that serves one model."""

    def __init__(
        self, http: aiohttp.ClientSession, url: str, model: str, decoding: Decoding, stop_strings: Sequence[str]
    ) -> None:
        """Take a session, the address up to ``/v1``, the name the server knows the model by, and how it samples."""
        self._http = http
        self._url = url
        self._options: dict[str, Any] = {
            "model": model,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "top_k": decoding.top_k,
            # Left out, a server takes them from the model's generation config.
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stop": list(stop_strings),
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "return_token_ids": True,
            "logprobs": 0,
        }
        self._is_greedy = decoding.is_greedy

    @classmethod
    async def open(
        cls, address: str, model: str, decoding: Decoding, stop_strings: Sequence[str], probe_ids: Sequence[int]
    ) -> ServerSampler:
        """Ask a server for its models and for one token.

        Args:
            address: with or without ``/v1``.
            model: the model's name here; the server's own name is taken if it serves one model only.
            decoding: how it samples.
            stop_strings: a turn ends at these, which are kept.
            probe_ids: a prompt, which has to come back unchanged.

        Raises:
            EvaluationError: if it does not answer, does not serve the model, or gives no ids.
        """
        bare = address.rstrip("/")
        url = bare if bare.endswith("/v1") else f"{bare}/v1"
        http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=_TIMEOUT)
        try:
            sampler = cls(http, url, await _served_name(http, url, model), decoding, stop_strings)
            await sampler._probe(list(probe_ids))
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            await http.close()
            raise EvaluationError(
                f"--server {address} does not answer ({type(error).__name__}: {error}): start it, for example with "
                "`vllm serve MODEL`"
            ) from error
        except EvaluationError:
            await http.close()
            raise
        return sampler

    async def sample(self, token_ids: list[int], limit: int, *, seed: int, watch: Watch | None = None) -> Generation:
        """Sample one turn.

        Raises:
            EvaluationError: if the server refuses, or is busy or away for longer than a few tries.
        """
        body = {**self._options, "prompt": token_ids, "max_tokens": limit}
        if not self._is_greedy:
            body["seed"] = seed
        if watch is not None:
            return await self._stream(body, watch)
        choice = (await self._post(body))["choices"][0]
        return Generation(
            token_ids=choice["token_ids"],
            log_probs=(choice.get("logprobs") or {}).get("token_logprobs"),
            is_aborted=choice.get("finish_reason") == "abort",
        )

    async def close(self) -> None:
        """Close the connections; the server goes on."""
        await self._http.close()

    async def _probe(self, token_ids: list[int]) -> None:
        choice = (await self._post({**self._options, "prompt": token_ids, "max_tokens": 1}))["choices"][0]
        if not choice.get("token_ids"):
            raise EvaluationError(
                f"{self._url}/completions gives back text without the ids that were sampled, and encoding the text "
                "again may give others: use a server with return_token_ids (vLLM 0.10.2 and later), or leave --server "
                "out"
            )
        echoed = choice.get("prompt_token_ids")
        if echoed is not None and list(echoed) != token_ids:
            raise EvaluationError(
                f"{self._url}/completions read another prompt than it was sent: it puts ids of its own in front; start "
                "it without such an option"
            )

    async def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer, after a few tries where the server is busy or away."""
        for number in range(1, _MAX_ATTEMPTS + 1):
            try:
                async with self._http.post(f"{self._url}/completions", json=body) as response:
                    if response.status not in _BUSY or number == _MAX_ATTEMPTS:
                        return await _read(response)
            except (aiohttp.ClientConnectionError, asyncio.TimeoutError):
                if number == _MAX_ATTEMPTS:
                    raise
            await asyncio.sleep(backoff_s(number, 0.0))
        raise AssertionError("the last try returns or raises")

    async def _stream(self, body: dict[str, Any], watch: Watch) -> Generation:
        ids: list[int] = []
        log_probs: list[float] = []
        async with self._http.post(f"{self._url}/completions", json={**body, "stream": True}) as response:
            if response.status != 200:
                await _read(response)
            async for line in response.content:
                data = line.decode().strip().removeprefix("data: ")
                if not data or data == "[DONE]":
                    continue
                choice = json.loads(data)["choices"][0]
                ids += choice.get("token_ids") or []
                log_probs += (choice.get("logprobs") or {}).get("token_logprobs") or []
                watch(ids)
        return Generation(token_ids=ids, log_probs=log_probs if len(log_probs) == len(ids) else None)


async def _served_name(http: aiohttp.ClientSession, url: str, model: str) -> str:
    async with http.get(f"{url}/models") as response:
        answer = await _read(response)
    names = [str(entry.get("id")) for entry in answer.get("data", [])]
    if model in names or len(names) == 1:
        return model if model in names else names[0]
    raise EvaluationError(
        f"{url} serves {', '.join(names) or 'no model'}, not {model}: start it with --served-model-name {model}"
    )


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
