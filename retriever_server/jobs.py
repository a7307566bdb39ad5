"""A query in flight, and the requests that wait for it."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from retriever_server.wire import Answer

# Most tokens any known encoder reads of a query.
_MAX_TOKENS = 512
# A special token at either end.
_SPECIAL_TOKENS = 2
_CHARS_PER_TOKEN = 4


class Key(NamedTuple):
    """What makes two searches the same."""

    text: str
    topk: int


class Phase(Enum):
    """Where a job is."""

    WAITING = "waiting"
    """In the queue."""

    TAKEN = "taken"
    """In a batch."""

    OVER = "over"
    """Answered, failed, or dropped because nobody waits for it."""


def estimate_tokens(text: str) -> int:
    """About how many tokens a query is, without a tokenizer: 4 characters each, or 1 outside ASCII."""
    length = len(text) // _CHARS_PER_TOKEN if text.isascii() else len(text)
    return min(length + _SPECIAL_TOKENS, _MAX_TOKENS)


@dataclass(eq=False, slots=True)
class Job:
    """One distinct query in flight, done once for all who wait."""

    key: Key
    num_tokens: int
    queued_at: float
    phase: Phase = Phase.WAITING
    waiters: set["Ticket"] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class Ticket:
    """One request: the answers it has and those it waits for."""

    keys: list[Key]
    future: "asyncio.Future[list[Answer]]"
    answers: dict[Key, Answer] = field(default_factory=dict)
    jobs: dict[Key, Job] = field(default_factory=dict)
    """What it still waits for."""
    pending: deque[Job] = field(default_factory=deque)
    """Jobs for its turns; those that another request's turn took are skipped."""
    timer: asyncio.TimerHandle | None = None

    def next_waiting(self) -> Job | None:
        """The next job that nobody has taken yet; it stays where it is."""
        while self.pending and self.pending[0].phase is not Phase.WAITING:
            self.pending.popleft()
        return self.pending[0] if self.pending else None

    def settle(self, key: Key, answer: Answer) -> None:
        """Take in one answer; the last one completes the request."""
        self.answers[key] = answer
        self.jobs.pop(key, None)
        self.complete()

    def complete(self) -> None:
        """Give the answers out if all are there."""
        if not self.jobs and not self.future.done():
            self.stop_timer()
            self.future.set_result([self.answers[key] for key in self.keys])

    def stop_timer(self) -> None:
        """The deadline no longer matters."""
        if self.timer is not None:
            self.timer.cancel()
