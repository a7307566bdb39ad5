"""Many episodes at once on one engine; each is written down as it ends."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_llds.errors import EvaluationError
from verl_llds.evaluation.questions import Question
from verl_llds.evaluation.rows import row_key, trajectory_row
from verl_llds.evaluation.sampler import EpisodeSampler, Sampler
from verl_llds.search.environment import Environment
from verl_llds.search.episode import run_episode
from verl_llds.search.failures import has_failed
from verl_llds.search.scoring import score_trajectory


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One episode to be played."""

    question: Question
    """What is asked."""
    sample: int
    """Which of the question's episodes, from 0."""
    prompt_ids: list[int]
    """The rendered prompt."""

    @property
    def key(self) -> str:
        """Its name."""
        return row_key(self.question.id, self.sample)


@dataclass(frozen=True, kw_only=True)
class Table:
    """What all episodes of an evaluation share."""

    sampler: Sampler
    """The engine."""
    environment: Environment
    """Protocol, tools, limits."""
    tokenizer: Any
    """The model's."""
    max_response_tokens: int
    """Budget of a response."""
    seed: int
    """Of the sampling."""
    concurrency: int
    """Episodes in flight."""

    async def play(self, jobs: Iterable[Job], add: Callable[[Mapping[str, Any]], None], most_failures: int) -> None:
        """Play all jobs, in order, and hand over each one's line as it ends.

        Raises:
            EvaluationError: as soon as more episodes failed than may.
        """
        failures = _Failures(most_failures)
        waiting = iter(jobs)

        def done(row: Mapping[str, Any]) -> None:
            add(row)
            failures.note(row)

        players = [asyncio.create_task(self._player(waiting, done)) for _ in range(self.concurrency)]
        try:
            await asyncio.gather(*players)
        finally:
            for player in players:
                player.cancel()
            await asyncio.gather(*players, return_exceptions=True)

    async def _player(self, waiting: Iterator[Job], done: Callable[[Mapping[str, Any]], None]) -> None:
        for job in waiting:
            done(await self._episode(job))

    async def _episode(self, job: Job) -> dict[str, Any]:
        started = time.perf_counter()
        trajectory = await run_episode(
            prompt_ids=job.prompt_ids,
            generate=EpisodeSampler(self.sampler, self.seed, job.key),
            environment=self.environment,
            tokenizer=self.tokenizer,
            max_response_tokens=self.max_response_tokens,
        )
        score = score_trajectory(trajectory, job.question.targets, self.environment)
        seconds = time.perf_counter() - started
        return trajectory_row(job.question, job.sample, trajectory, score, self.tokenizer, seconds)


class _Failures:
    """Counts episodes that the environment failed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows: list[Mapping[str, Any]] = []

    def note(self, row: Mapping[str, Any]) -> None:
        """Count an episode.

        Raises:
            EvaluationError: if there are too many.
        """
        if not has_failed(row):
            return
        self._rows.append(row)
        if len(self._rows) > self._most:
            raise EvaluationError(
                f"{len(self._rows)} episodes failed by no fault of the policy's, more than the {self._most} allowed: "
                f"{failure_causes(self._rows)}. Mend that and start the same command again: it goes on"
            )


def failure_causes(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the statuses of failed episodes, each with its most frequent error."""
    parts = []
    for status, count in Counter(row["status"] for row in rows).most_common():
        text, _ = Counter(row["error"] for row in rows if row["status"] == status).most_common(1)[0]
        parts.append(f"{count} {status}, for example {text!r}")
    return "; ".join(parts)
