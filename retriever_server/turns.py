"""The queue: requests take turns, and small ones do not wait for a batch full of a large one's queries."""

import math
from collections import OrderedDict

from retriever_server.jobs import Job, Phase, Ticket

# Queries a request may put into a batch before the next request gets its turn; one that brings no more is small.
_TURN = 16
# While small requests come, a batch of large ones holds the engine for a few queries only, and the next one waits
# for it. Their share of the queries is at least a third, so that a crowd of small ones does not starve them.
_MIN_LARGE = 8
_LARGE_SHARE = 2
# How long after the last small request another one is expected.
_EXPECTED_S = 5.0


class TurnQueue:
    """Requests with jobs that wait, in the order of their turns. A job runs at the first turn of any who want it."""

    def __init__(self) -> None:
        self._small: OrderedDict[Ticket, None] = OrderedDict()
        self._large: OrderedDict[Ticket, None] = OrderedDict()
        self._small_is_next = True
        self._small_until = -math.inf
        self._num_large = _MIN_LARGE
        self._last_large: list[Job] = []
        self.num_jobs = 0
        """Jobs that wait, each counted once."""
        self.num_tokens = 0
        """Estimated tokens of these jobs."""

    def add(self, ticket: Ticket, new: list[Job]) -> None:
        """Queue a request. ``new`` are those of its pending jobs that no other request has brought."""
        if ticket.pending:
            (self._small if len(ticket.pending) <= _TURN else self._large)[ticket] = None
        for job in new:
            self.num_jobs += 1
            self.num_tokens += job.num_tokens

    def withdraw(self, ticket: Ticket) -> list[Job]:
        """Take a request out, and with it the jobs that only it waits for; returns these."""
        self._small.pop(ticket, None)
        self._large.pop(ticket, None)
        dropped = []
        for job in ticket.jobs.values():
            job.waiters.discard(ticket)
            if job.phase is Phase.WAITING and not job.waiters:
                self._leave(job, Phase.OVER)
                dropped.append(job)
        ticket.pending.clear()
        return dropped

    def take(self, *, max_jobs: int, max_tokens: int, now: float) -> list[Job]:
        """The next batch, shortest first.

        It is of small requests or of large ones, by turns where both wait. It is empty if nothing waits, or if
        small requests are expected and the last batch of large ones is not over.

        Args:
            max_jobs: Most jobs of a batch.
            max_tokens: Most estimated tokens, unless a single job has more.
            now: The time in seconds, of any clock that never goes back.
        """
        for small in (self._small_is_next, not self._small_is_next):
            batch = (
                self._take_small(max_jobs, max_tokens, now) if small else self._take_large(max_jobs, max_tokens, now)
            )
            if batch:
                self._small_is_next = not small
                return sorted(batch, key=lambda job: job.num_tokens)
        return []

    def _take_small(self, max_jobs: int, max_tokens: int, now: float) -> list[Job]:
        batch = self._fill(self._small, max_jobs, max_tokens)
        if batch:
            self._small_until = now + _EXPECTED_S
            self._num_large = max(_MIN_LARGE, len(batch) // _LARGE_SHARE)
        return batch

    def _take_large(self, max_jobs: int, max_tokens: int, now: float) -> list[Job]:
        if now <= self._small_until:
            if any(job.phase is not Phase.OVER for job in self._last_large):
                return []
            max_jobs = min(max_jobs, self._num_large)
        self._last_large = self._fill(self._large, max_jobs, max_tokens)
        return self._last_large

    def _fill(self, tickets: "OrderedDict[Ticket, None]", max_jobs: int, max_tokens: int) -> list[Job]:
        batch: list[Job] = []
        num_tokens = 0
        while tickets and len(batch) < max_jobs:
            ticket, _ = tickets.popitem(last=False)
            for _ in range(min(_TURN, max_jobs)):
                job = ticket.next_waiting()
                if job is None:
                    break
                if len(batch) == max_jobs or (batch and num_tokens + job.num_tokens > max_tokens):
                    # Its turn is not over: it comes first next time.
                    tickets[ticket] = None
                    tickets.move_to_end(ticket, last=False)
                    return batch
                ticket.pending.popleft()
                self._leave(job, Phase.TAKEN)
                batch.append(job)
                num_tokens += job.num_tokens
            if ticket.next_waiting() is not None:
                tickets[ticket] = None
        return batch

    def share_before(self, num_jobs: int) -> float:
        """About which share of the queue comes before the last turn of a new request with so many jobs."""
        per_request = -(-num_jobs // _TURN) * _TURN
        jobs_before = sum(min(len(ticket.pending), per_request) for ticket in (*self._small, *self._large))
        return min(1.0, jobs_before / max(self.num_jobs, 1))

    def _leave(self, job: Job, phase: Phase) -> None:
        job.phase = phase
        self.num_jobs -= 1
        self.num_tokens -= job.num_tokens
