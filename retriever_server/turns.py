"""The queue: requests take turns, so that a large one does not hold up small ones."""

from collections import OrderedDict

from retriever_server.jobs import Job, Phase, Ticket

# Queries a request may put into a batch before the next request gets its turn.
_TURN = 16


class TurnQueue:
    """Requests with jobs that wait, in the order of their turns. A job runs at the first turn of any who want it."""

    def __init__(self) -> None:
        self._tickets: OrderedDict[Ticket, None] = OrderedDict()
        self.num_jobs = 0
        """Jobs that wait, each counted once."""
        self.num_tokens = 0
        """Estimated tokens of these jobs."""

    def add(self, ticket: Ticket, new: list[Job]) -> None:
        """Queue a request. ``new`` are those of its pending jobs that no other request has brought."""
        if ticket.pending:
            self._tickets[ticket] = None
        for job in new:
            self.num_jobs += 1
            self.num_tokens += job.num_tokens

    def withdraw(self, ticket: Ticket) -> list[Job]:
        """Take a request out, and with it the jobs that only it waits for; returns these."""
        self._tickets.pop(ticket, None)
        dropped = []
        for job in ticket.jobs.values():
            job.waiters.discard(ticket)
            if job.phase is Phase.WAITING and not job.waiters:
                self._leave(job, Phase.OVER)
                dropped.append(job)
        ticket.pending.clear()
        return dropped

    def take(self, *, max_jobs: int, max_tokens: int) -> list[Job]:
        """The next batch, shortest first; at least one job if there is any."""
        batch: list[Job] = []
        num_tokens = 0
        while self._tickets and len(batch) < max_jobs:
            ticket, _ = self._tickets.popitem(last=False)
            for _ in range(_TURN):
                job = ticket.next_waiting()
                if job is None:
                    break
                if len(batch) == max_jobs or (batch and num_tokens + job.num_tokens > max_tokens):
                    # Its turn is not over: it comes first next time.
                    self._tickets[ticket] = None
                    self._tickets.move_to_end(ticket, last=False)
                    return _shortest_first(batch)
                ticket.pending.popleft()
                self._leave(job, Phase.TAKEN)
                batch.append(job)
                num_tokens += job.num_tokens
            if ticket.next_waiting() is not None:
                self._tickets[ticket] = None
        return _shortest_first(batch)

    def share_before(self, num_jobs: int) -> float:
        """About which share of the queue comes before the last turn of a new request with so many jobs."""
        per_request = -(-num_jobs // _TURN) * _TURN
        jobs_before = sum(min(len(ticket.pending), per_request) for ticket in self._tickets)
        return min(1.0, jobs_before / max(self.num_jobs, 1))

    def _leave(self, job: Job, phase: Phase) -> None:
        job.phase = phase
        self.num_jobs -= 1
        self.num_tokens -= job.num_tokens


def _shortest_first(batch: list[Job]) -> list[Job]:
    # An encoder that works through a batch in parts then pads little.
    return sorted(batch, key=lambda job: job.num_tokens)
