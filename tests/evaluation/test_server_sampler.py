"""The OpenAI-compatible path against a server that speaks as vLLM's does, and ones that do not.

The real server is in tests/e2e/test_evaluation.py.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from verl_llds.errors import EvaluationError
from verl_llds.evaluation.server_sampler import ServerSampler
from verl_llds.evaluation.settings import Decoding
from verl_llds.evaluation.turn_readers import EngineIds

STOP = ("</search>", "</answer>")


def completion(**values: Any) -> dict[str, Any]:
    return {
        "token_ids": [5, 6],
        "prompt_token_ids": [1, 2],
        "logprobs": {"token_logprobs": [-0.1, -0.2]},
        "finish_reason": "stop",
        "text": "ab",
        **values,
    }


class FakeServer:
    """Answers what it is told to; keeps what it was asked."""

    def __init__(self, *answers: dict[str, Any] | int, models: tuple[str, ...] = ("m",)) -> None:
        self.answers = list(answers)
        self.models = models
        self.asked: list[dict[str, Any]] = []

    async def list_models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in self.models]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, int):
            return web.json_response({"error": "no"}, status=answer)
        if not body.get("stream"):
            return web.json_response({"choices": [answer] if answer else []})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for token, log_prob in zip(answer["token_ids"], answer["logprobs"]["token_logprobs"], strict=True):
            choice = {"token_ids": [token], "logprobs": {"token_logprobs": [log_prob]}}
            await response.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
        if answer["finish_reason"] == "error":
            await response.write(b'data: {"error": {"message": "out of memory"}}\n\n')
        await response.write(b"data: [DONE]\n\n")
        return response


@asynccontextmanager
async def serving(fake: FakeServer) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/v1/models", fake.list_models)
    app.router.add_post("/v1/completions", fake.complete)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


async def open_at(url: str, decoding: Decoding | None = None) -> ServerSampler:
    decoding = decoding or Decoding()
    return await ServerSampler.open(url, "m", EngineIds(decoding), decoding, STOP, [1, 2])


async def test_ids_go_in_and_ids_come_out() -> None:
    fake = FakeServer(completion())
    async with serving(fake) as url:
        sampler = await open_at(url)
        generation = await sampler.sample([1, 2], 9, seed=4)
        await sampler.close()
    assert (generation.token_ids, generation.log_probs) == ([5, 6], [-0.1, -0.2])
    asked = fake.asked[-1]
    assert asked["prompt"] == [1, 2]
    assert asked["max_tokens"] == 9
    assert asked["stop"] == list(STOP)
    # Nothing may be left to the model's generation config, which a server would take its defaults from.
    assert (asked["temperature"], asked["top_p"], asked["top_k"]) == (0.0, 1.0, -1)
    assert (asked["min_p"], asked["repetition_penalty"]) == (0.0, 1.0)
    assert asked["return_token_ids"] is True
    assert asked["include_stop_str_in_output"] is True
    assert asked["skip_special_tokens"] is False
    assert "seed" not in asked


async def test_sampling_is_seeded() -> None:
    fake = FakeServer(completion())
    async with serving(fake) as url:
        sampler = await open_at(f"{url}v1/", Decoding(temperature=0.7, top_p=0.9))
        await sampler.sample([1], 9, seed=4)
        await sampler.close()
    assert (fake.asked[-1]["seed"], fake.asked[-1]["temperature"], fake.asked[-1]["top_p"]) == (4, 0.7, 0.9)


async def test_a_stream_is_watched_and_the_same_in_the_end() -> None:
    fake = FakeServer(completion())
    seen: list[list[int]] = []
    async with serving(fake) as url:
        sampler = await open_at(url)
        generation = await sampler.sample([1], 9, seed=0, watch=lambda ids: seen.append(list(ids)))
        await sampler.close()
    assert seen == [[5], [5, 6]]
    assert (generation.token_ids, generation.log_probs) == ([5, 6], [-0.1, -0.2])


async def test_a_stream_that_breaks_off_is_no_turn() -> None:
    async with serving(FakeServer(completion(), completion(finish_reason="error"))) as url:
        sampler = await open_at(url)
        with pytest.raises(EvaluationError, match=r"completions stopped: .*out of memory"):
            await sampler.sample([1], 9, seed=0, watch=lambda ids: None)
        await sampler.close()


@pytest.mark.parametrize(
    ("fake", "message"),
    [
        (lambda: FakeServer(completion(token_ids=None)), "without the ids that were sampled.*--retokenize"),
        (lambda: FakeServer({}), "answered without choices"),
        (lambda: FakeServer(completion(prompt_token_ids=[0, 1, 2])), "read another prompt than it was sent"),
        (lambda: FakeServer(completion(), models=("x", "y")), "serves x, y, not m"),
        (lambda: FakeServer(400), "answered HTTP 400"),
    ],
)
async def test_a_server_that_cannot_be_played_on_is_refused_at_once(
    fake: Callable[[], FakeServer], message: str
) -> None:
    async with serving(fake()) as url:
        with pytest.raises(EvaluationError, match=message):
            await open_at(url)


async def test_the_only_model_of_a_server_is_taken_whatever_it_is_called() -> None:
    fake = FakeServer(completion(), models=("served-name",))
    async with serving(fake) as url:
        await (await open_at(url)).close()
    assert fake.asked[0]["model"] == "served-name"


async def test_a_busy_server_is_asked_again() -> None:
    fake = FakeServer(completion(), 503, 429, completion())
    async with serving(fake) as url:
        sampler = await open_at(url)
        assert (await sampler.sample([1], 9, seed=0)).token_ids == [5, 6]
        await sampler.close()
    assert len(fake.asked) == 4


async def test_a_server_that_is_not_there_is_said() -> None:
    with pytest.raises(EvaluationError, match=r"--server http://127\.0\.0\.1:9 does not answer"):
        await open_at("http://127.0.0.1:9")


async def test_an_aborted_turn_is_no_turn() -> None:
    async with serving(FakeServer(completion(), completion(finish_reason="abort"))) as url:
        sampler = await open_at(url)
        assert (await sampler.sample([1], 9, seed=0)).is_aborted
        await sampler.close()
