"""Episodes of a whole step at once: coroutines of `run_episode` whose turns one batcher decodes together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, Qwen2ForCausalLM

from lab.retriever import OverlapSearcher
from lab.vocabulary import WordTokenizer, prompt_text
from lab.world import Fact
from verl_llds.search.environment import make_environment
from verl_llds.search.episode import run_episode
from verl_llds.search.settings import SearchConfig
from verl_llds.search.trajectory import Generation, Trajectory

SEARCH = SearchConfig(topk=3, max_turns=2, max_action_tokens=14, max_observation_tokens=32)
"""Two turns that may search and the forced final one: at most three actions."""

MAX_RESPONSE_TOKENS = 112
"""Never reached: three actions and two observations are 106 tokens at most."""


@dataclass(slots=True)
class _Request:
    ids: list[int]
    limit: int
    future: asyncio.Future[Generation]


class Batcher:
    """Decodes the turns of all live episodes together, as soon as every one of them waits for its next turn.

    Args:
        model: the policy.
        tokenizer: gives padding and stop ids.
        generator: draws the samples at temperature 1; None decodes greedily.
    """

    def __init__(self, model: Qwen2ForCausalLM, tokenizer: WordTokenizer, generator: torch.Generator | None) -> None:
        self._model, self._tokenizer, self._generator = model, tokenizer, generator
        self._live = 0
        self._waiting: list[_Request] = []

    def join(self) -> None:
        """Count one more episode; call it for all of them before the first one waits."""
        self._live += 1

    def leave(self) -> None:
        """Count one episode less; the others may have been waiting for it."""
        self._live -= 1
        self._decode_if_all_wait()

    async def generate(self, ids: list[int], limit: int) -> Generation:
        """Sample one turn; a `verl_llds.search.episode.Generate`."""
        request = _Request(ids, limit, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._decode_if_all_wait()
        return await request.future

    def _decode_if_all_wait(self) -> None:
        if not self._waiting or len(self._waiting) < self._live:
            return
        requests, self._waiting = self._waiting, []
        for request, generation in zip(requests, self._decode(requests), strict=True):
            request.future.set_result(generation)

    @torch.no_grad()
    def _decode(self, requests: Sequence[_Request]) -> list[Generation]:
        sampled: list[list[int]] = [[] for _ in requests]
        log_probs: list[list[float]] = [[] for _ in requests]
        longest = max(len(request.ids) for request in requests)
        # Padded on the left, so that all rows go on in the same column.
        rows = [[self._tokenizer.pad_id] * (longest - len(request.ids)) + request.ids for request in requests]
        ids = torch.tensor(rows)
        padding = torch.tensor([longest - len(request.ids) for request in requests])
        mask = (torch.arange(longest) >= padding[:, None]).long()
        positions = (torch.arange(longest) - padding[:, None]).clamp(min=0)
        cache = DynamicCache(config=self._model.config)
        running = [True] * len(requests)
        while any(running):
            logits = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            chosen, chosen_log_probs = self._choose(logits)
            for row, (token, log_prob) in enumerate(zip(chosen.tolist(), chosen_log_probs.tolist(), strict=True)):
                if running[row]:
                    sampled[row].append(token)
                    log_probs[row].append(log_prob)
                    is_over = token in self._tokenizer.stop_ids or len(sampled[row]) == requests[row].limit
                    running[row] = not is_over
            ids, positions = chosen[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        return [Generation(token_ids=one, log_probs=two) for one, two in zip(sampled, log_probs, strict=True)]

    def _choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        if self._generator is None:
            chosen = log_probs.argmax(dim=-1)
        else:
            chosen = torch.multinomial(log_probs.exp(), 1, generator=self._generator).squeeze(1)
        return chosen, log_probs.gather(1, chosen[:, None]).squeeze(1)


def roll_out(
    model: Qwen2ForCausalLM,
    tokenizer: WordTokenizer,
    searcher: OverlapSearcher,
    facts: Sequence[Fact],
    generator: torch.Generator | None,
) -> list[Trajectory]:
    """Play one episode a fact, in order, and return their trajectories."""
    batcher = Batcher(model, tokenizer, generator)
    environment = make_environment(SEARCH, searcher, tokenizer)

    async def play(fact: Fact) -> Trajectory:
        try:
            return await run_episode(
                prompt_ids=tokenizer.encode(prompt_text(fact.query)),
                generate=batcher.generate,
                environment=environment,
                tokenizer=tokenizer,
                max_response_tokens=MAX_RESPONSE_TOKENS,
            )
        finally:
            batcher.leave()

    async def play_all() -> list[Trajectory]:
        for _ in facts:
            batcher.join()
        return await asyncio.gather(*(play(fact) for fact in facts))

    return asyncio.run(play_all())
