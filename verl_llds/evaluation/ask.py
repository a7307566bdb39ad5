"""One episode in the terminal, as it happens: what the policy writes, what it is shown, what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from verl_llds.errors import EvaluationError
from verl_llds.evaluation.model import Model, open_model, render, response_budget
from verl_llds.evaluation.questions import Question
from verl_llds.evaluation.retriever import check_served
from verl_llds.evaluation.sampler import EpisodeSampler, Sampler
from verl_llds.evaluation.settings import EvalSettings
from verl_llds.evaluation.start import open_sampler
from verl_llds.evaluation.vllm_sampler import check_vllm
from verl_llds.search.client import SearchClient
from verl_llds.search.environment import Environment, make_environment
from verl_llds.search.episode import run_episode
from verl_llds.search.protocol import ANSWER_OPEN
from verl_llds.search.trajectory import Generation, Trajectory

_POLICY, _OBSERVATION, _ANSWER = "cyan", "dim", "bold green"
_BROKEN = "\ufffd"


def ask(settings: EvalSettings, text: str, expect_corpus: str | None, console: Console) -> Trajectory:
    """Play one episode and print it while it is played.

    Args:
        settings: how.
        text: the user's turn.
        expect_corpus: beginning of the SHA-256 of the retriever's corpus; None takes any.
        console: where.

    Raises:
        LLDSError: for model or retriever that cannot be had, and if the episode failed.
    """
    if settings.server is None:
        check_vllm()
    model = open_model(settings)
    check_served(settings.search, expect_corpus)
    client = SearchClient(settings.search)
    environment = make_environment(settings.search, client, model.tokenizer)
    messages = ({"role": "user", "content": text},)
    question = Question(id="asked", source="asked", split="", messages=messages, targets=(), number=0)
    return asyncio.run(_play(settings, model, environment, client, question, console))


async def _play(
    settings: EvalSettings,
    model: Model,
    environment: Environment,
    client: SearchClient,
    question: Question,
    console: Console,
) -> Trajectory:
    prompt_ids = render(question, environment, model.tokenizer)
    budget = response_budget(settings, model, [(question, prompt_ids)])
    sampler = await open_sampler(settings, model, environment, len(prompt_ids) + budget, prompt_ids)
    try:
        screen = Screen(sampler=sampler, tokenizer=model.tokenizer, console=console, num_shown=len(prompt_ids))
        trajectory = await run_episode(
            prompt_ids=prompt_ids,
            generate=EpisodeSampler(screen, settings.decoding.seed, question.id),
            environment=environment,
            tokenizer=model.tokenizer,
            max_response_tokens=budget,
        )
    finally:
        await sampler.close()
        await client.close()
    console.print()
    if trajectory.status.is_failure:
        raise EvaluationError(f"the episode failed ({trajectory.status.value}): {trajectory.error}")
    console.print(f"{trajectory.status.value}, {trajectory.num_searches} searches with passages", style="dim")
    return trajectory


@dataclass(kw_only=True)
class Screen:
    """A sampler that shows what it is asked to read and what it samples."""

    sampler: Sampler
    """The engine."""
    tokenizer: Any
    """The model's."""
    console: Console
    """Where it is shown."""
    num_shown: int
    """Ids that are on the screen, or not to be shown: the prompt's at first."""
    _num_turn: int = field(default=0, repr=False)

    async def sample(self, token_ids: list[int], limit: int, *, seed: int, watch: object | None = None) -> Generation:
        """Show what the environment added, and the turn as it is sampled."""
        self._show(self._decode(token_ids[self.num_shown :]), _OBSERVATION)
        self._num_turn = 0
        generation = await self.sampler.sample(token_ids, limit, seed=seed, watch=self._grow)
        self._show_turn(self._decode(generation.token_ids))
        self.num_shown = len(token_ids) + len(generation.token_ids)
        return generation

    async def close(self) -> None:
        """Close the engine."""
        await self.sampler.close()

    def _grow(self, token_ids: Sequence[int]) -> None:
        """Show what is new of the turn; a character or a tag that is not complete waits for the rest."""
        text = self._decode(token_ids).rstrip(_BROKEN)
        self._show_turn(text[: len(text) - _num_held(text)])

    def _show_turn(self, text: str) -> None:
        opening = text.find(ANSWER_OPEN)
        middle = len(text) if opening < 0 else max(opening, self._num_turn)
        self._show(text[self._num_turn : middle], _POLICY)
        self._show(text[middle:], _ANSWER)
        self._num_turn = max(self._num_turn, len(text))

    def _decode(self, token_ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(token_ids, skip_special_tokens=False)
        return text

    def _show(self, text: str, style: str) -> None:
        if text:
            self.console.print(text, style=style, end="", markup=False, highlight=False, soft_wrap=True)


def _num_held(text: str) -> int:
    """Return how many of the last characters may be the beginning of an answer's tag."""
    return next((count for count in range(len(ANSWER_OPEN) - 1, 0, -1) if text.endswith(ANSWER_OPEN[:count])), 0)
