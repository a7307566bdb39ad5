"""Answers already known in the present training step."""

from __future__ import annotations

from dataclasses import replace

from verl_llds.search.tools import SearchResult

MAX_QUERIES = 20_000
"""Most answers kept: some 100 MB at three Wikipedia passages each; a step with more asks again."""


class StepCache:
    """Answers to exact queries, forgotten when a later step starts."""

    def __init__(self, max_queries: int = MAX_QUERIES) -> None:
        self._max_queries = max_queries
        self._answers: dict[str, SearchResult] = {}
        self._step = -1

    @property
    def step(self) -> int:
        """The present step; -1 before the first one is told."""
        return self._step

    def start_step(self, step: int) -> None:
        """Forget everything if this step is later than the present one."""
        if step > self._step:
            self._step = step
            self._answers.clear()

    def get(self, query: str) -> SearchResult | None:
        """Return what is known, which takes no request, or None."""
        return self._answers.get(query)

    def put(self, step: int, query: str, result: SearchResult) -> None:
        """Keep an answer to a query of a step, unless that step is over or the cache is full."""
        if step == self._step and len(self._answers) < self._max_queries:
            self._answers[query] = replace(result, attempts=0)
