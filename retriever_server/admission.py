"""Which requests are taken in, and what becomes of them: the state between the event loop's clients and the engine.

Identical queries in flight are one job, across requests. Nothing here knows of threads or of the engine.
"""

import asyncio
from collections.abc import Sequence

from retriever_server.errors import BusyError, DeadlineError, OverloadedError, SearchFailedError
from retriever_server.jobs import Job, Key, Phase, Ticket, estimate_tokens
from retriever_server.lru import LRU
from retriever_server.metrics import Metrics
from retriever_server.rate import ServiceRate
from retriever_server.service_settings import ServiceSettings
from retriever_server.turns import TurnQueue
from retriever_server.wire import Answer

# What an entry of the cache costs beside its bytes.
_ENTRY_BYTES = 400


class Admission:
    """The queue, the queries in flight and the cache. All methods belong to one event loop."""

    def __init__(self, settings: ServiceSettings, metrics: Metrics, *, max_chars: int) -> None:
        self._settings = settings
        self._metrics = metrics
        self._max_chars = max_chars
        self._queue = TurnQueue()
        self._jobs: dict[Key, Job] = {}
        self._tickets: set[Ticket] = set()
        self._rate = ServiceRate()
        self._num_taken = 0
        self._cache: LRU[Key, Answer] = LRU(
            max_entries=settings.cache_size, max_bytes=settings.cache_mb << 20, size=_cached_bytes
        )

    def admit(self, queries: Sequence[str], topk: int, deadline_s: float | None) -> Ticket:
        """Take a request in; its future gets one answer per query, in order, or a BusyError or SearchFailedError.

        Raises:
            OverloadedError: Too many queries wait, or more than can be answered before the deadline.
        """
        deadline_s = min(deadline_s or self._settings.deadline_s, self._settings.deadline_s)
        loop = asyncio.get_running_loop()
        ticket = Ticket([Key(query[: self._max_chars], topk) for query in queries], loop.create_future())
        new = self._look_up(ticket, loop.time())
        if new:
            self._check_room(len(new), deadline_s)
        self._metrics.queries.inc(len(ticket.keys))
        self._metrics.cache_hits.inc(sum(key in ticket.answers for key in ticket.keys))
        self._metrics.cache_misses.inc(sum(key in ticket.jobs for key in ticket.keys))
        self._metrics.shared_queries.inc(sum(key in ticket.jobs for key in ticket.keys) - len(new))
        if ticket.jobs:
            self._enqueue(ticket, new)
            ticket.timer = loop.call_later(deadline_s, self._expire, ticket)
        ticket.complete()
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Nobody waits for this request any more: what only it wanted is not done."""
        ticket.stop_timer()
        if ticket in self._tickets:
            self._tickets.discard(ticket)
            for job in self._queue.withdraw(ticket):
                del self._jobs[job.key]
                self._metrics.dropped_queries.inc()
            self._metrics.queue_depth.set(self._queue.num_jobs)
        if ticket.future.done() and not ticket.future.cancelled():
            # Read, or asyncio would log an exception that nobody was left to see.
            ticket.future.exception()
        ticket.future.cancel()

    def refuse_all(self, error: BusyError) -> None:
        """Answer every request that waits with ``error``."""
        for ticket in list(self._tickets):
            self._refuse(ticket, error)

    def take(self) -> list[Job]:
        """The next batch; empty if nothing waits."""
        now = asyncio.get_running_loop().time()
        settings = self._settings
        batch = self._queue.take(max_jobs=settings.max_batch, max_tokens=settings.max_batch_tokens, now=now)
        if batch:
            for job in batch:
                self._metrics.queue_seconds.observe(now - job.queued_at)
            self._num_taken += len(batch)
            self._metrics.queue_depth.set(self._queue.num_jobs)
        return batch

    def drop_unwanted(self, batch: Sequence[Job]) -> list[Job]:
        """Those of a batch that somebody still waits for; the others are over."""
        wanted = [job for job in batch if job.waiters]
        for job in batch:
            if not job.waiters:
                self._metrics.dropped_queries.inc()
                self._close(job)
        return wanted

    def settle(self, batch: Sequence[Job], answers: Sequence[Answer], started: float) -> None:
        """Give out the answers of a batch that began at ``started``."""
        self._rate.record(started=started, done=asyncio.get_running_loop().time())
        for job, answer in zip(batch, answers, strict=True):
            self._close(job)
            self._cache.put(job.key, answer)
            for ticket in job.waiters:
                ticket.settle(job.key, answer)
                if not ticket.jobs:
                    self._tickets.discard(ticket)
        self._metrics.cache_entries.set(len(self._cache))
        self._metrics.cache_bytes.set(self._cache.num_bytes)

    def fail(self, batch: Sequence[Job], error: BusyError | SearchFailedError) -> None:
        """Answer every request that waits for one of these jobs with ``error``."""
        for job in batch:
            self._close(job)
            for ticket in list(job.waiters):
                self._refuse(ticket, error)

    def _look_up(self, ticket: Ticket, now: float) -> list[Job]:
        new = []
        for key in dict.fromkeys(ticket.keys):
            if (answer := self._cache.get(key)) is not None:
                ticket.answers[key] = answer
                continue
            job = self._jobs.get(key)
            if job is None:
                job = Job(key, estimate_tokens(key.text), now)
                new.append(job)
            ticket.jobs[key] = job
        return new

    def _check_room(self, num_new: int, deadline_s: float) -> None:
        num_waiting = self._queue.num_jobs
        if num_waiting + num_new > self._settings.max_queue:
            # By then the queue is half empty.
            seconds = self._seconds(0.5)
            raise OverloadedError(f"{num_waiting} queries are waiting already; try again later", "queue_full", seconds)
        # Only what lies before it counts: with nothing before it a request is let in, and its batch corrects the
        # estimate.
        if self._seconds(1.0) <= deadline_s:
            return
        seconds = self._seconds(self._queue.share_before(num_new))
        if seconds > deadline_s:
            raise OverloadedError(
                f"it would take {seconds:.0f} s to get to this request, longer than the {deadline_s:.3g} s it has",
                "deadline",
                seconds - deadline_s,
            )

    def _seconds(self, share: float) -> float:
        """How long what is with the engine and such a share of the queue will take."""
        settings = self._settings
        queued = max(self._queue.num_jobs / settings.max_batch, self._queue.num_tokens / settings.max_batch_tokens)
        return self._rate.seconds(self._num_taken / settings.max_batch + share * queued)

    def _enqueue(self, ticket: Ticket, new: list[Job]) -> None:
        self._tickets.add(ticket)
        for job in ticket.jobs.values():
            job.waiters.add(ticket)
            if job.phase is Phase.WAITING:
                ticket.pending.append(job)
        self._jobs.update((job.key, job) for job in new)
        self._queue.add(ticket, new)
        self._metrics.queue_depth.set(self._queue.num_jobs)

    def _close(self, job: Job) -> None:
        job.phase = Phase.OVER
        self._num_taken -= 1
        del self._jobs[job.key]

    def _expire(self, ticket: Ticket) -> None:
        error = DeadlineError("no answer within the deadline; try again later", "expired", self._seconds(1.0))
        self._refuse(ticket, error)

    def _refuse(self, ticket: Ticket, error: BusyError | SearchFailedError) -> None:
        if not ticket.future.done():
            ticket.future.set_exception(error)
        self.withdraw(ticket)


def _cached_bytes(key: Key, answer: Answer) -> int:
    return _ENTRY_BYTES + len(key.text.encode()) + answer.num_bytes
