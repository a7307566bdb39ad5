"""An engine behind an OpenAI-compatible server of completions: prompts go in as ids.

Encoded again, the text of a turn may be other ids than were sampled, and the policy would read another beginning of its
next turn than it wrote. So a server has to give ids, unless the user asks for the text to be encoded
(`verl_llds.evaluation.turn_readers`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import aiohttp

from verl_llds.errors import EvaluationError
from verl_llds.evaluation.completions import CompletionsServer
from verl_llds.evaluation.sampler import Watch
from verl_llds.evaluation.settings import Decoding
from verl_llds.evaluation.turn_readers import Choice, TurnReader
from verl_llds.search.trajectory import Generation


class ServerSampler:
    """A server that serves one model."""

    def __init__(
        self,
        server: CompletionsServer,
        reader: TurnReader,
        name: str,
        decoding: Decoding,
        stop_strings: Sequence[str],
    ) -> None:
        """Take the server, how turns are read, what it calls the model, how it samples and where it stops."""
        self._server = server
        self._reader = reader
        self._options: dict[str, Any] = {
            "model": name,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "stop": list(stop_strings),
            **reader.fields,
        }
        self._is_greedy = decoding.is_greedy

    @classmethod
    async def open(
        cls,
        address: str,
        model: str,
        reader: TurnReader,
        decoding: Decoding,
        stop_strings: Sequence[str],
        probe_ids: Sequence[int],
    ) -> ServerSampler:
        """Ask a server for its models and for one token.

        Args:
            address: with or without ``/v1``.
            model: the model's name here; the server's own name is taken if it serves one model only.
            reader: how turns are read.
            decoding: how it samples.
            stop_strings: a turn ends at these, which are kept.
            probe_ids: a prompt, which it has to read unchanged.

        Raises:
            EvaluationError: if it does not answer, does not serve the model, or its turns cannot be read.
        """
        server = CompletionsServer(address)
        try:
            sampler = cls(server, reader, await server.served_name(model), decoding, stop_strings)
            reader.check(server.url, await sampler._probe(list(probe_ids)), probe_ids)
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            await server.close()
            raise EvaluationError(
                f"--server {address} does not answer ({type(error).__name__}: {error}): start it, for example with "
                "`vllm serve MODEL`"
            ) from error
        except EvaluationError:
            await server.close()
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
        if watch is None:
            return self._reader.generation((await self._server.post(body))["choices"], limit)
        choices: list[Choice] = []
        async for choice in self._server.stream(body):
            choices.append(choice)
            watch(self._reader.ids(choices))
        return self._reader.generation(choices, limit)

    async def _probe(self, token_ids: list[int]) -> dict[str, Any]:
        try:
            return await self._server.post({**self._options, "prompt": token_ids, "max_tokens": 1})
        except EvaluationError as error:
            if not self._reader.fields:
                raise
            fields = ", ".join(self._reader.fields)
            raise EvaluationError(
                f"{error}. If it knows no fields beside OpenAI's, --retokenize asks without {fields}"
            ) from error

    async def close(self) -> None:
        """Close the connections; the server goes on."""
        await self._server.close()
