"""One retriever's address, and what is known of the server behind it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from verl_llds.search.client.attempt import AttemptError, Trouble
from verl_llds.search.client.breaker import Breaker, BreakerState, Permit

_MAX_FAILURES = 5
"""Consecutive failures after which a retriever counts as down."""

_FIRST_PAUSE_S = 0.5
_MAX_PAUSE_S = 5.0

_PROBES_PER_WAIT = 4
"""Probes at least that fall into one query's longest wait."""

_PAUSE_JITTER = 0.1
"""Share by which a Retry-After is stretched, so that workers refused together do not return together."""


class Endpoint:
    """An address with its circuit breaker and the pause its server asked for; belongs to one event loop."""

    def __init__(self, url: str, *, max_wait_s: float, clock: Callable[[], float]) -> None:
        self.url = url
        self._clock = clock
        self._last_error: AttemptError | None = None
        self._paused_until = -math.inf
        self._breaker = Breaker(
            max_failures=_MAX_FAILURES,
            first_pause_s=_FIRST_PAUSE_S,
            # A query that finds every retriever down still sees one tried before its time is up.
            max_pause_s=min(_MAX_PAUSE_S, max_wait_s / _PROBES_PER_WAIT),
            clock=clock,
        )

    @property
    def is_down(self) -> bool:
        """Whether the server was found not to work, so that only a probe goes there."""
        return self._breaker.state is not BreakerState.CLOSED

    @property
    def held_back_by(self) -> AttemptError | None:
        """What keeps requests of all queries from going here now, if anything does."""
        return self._last_error if self.is_down or self._paused_until > self._clock() else None

    def ready_in_s(self, not_before: float) -> float:
        """Return the seconds until a query may go here; none if not positive, inf if a probe decides.

        Args:
            not_before: when the query's own backoff ends. It does not hold back a probe, which has its own pause.
        """
        earliest = self._breaker.probe_at if self.is_down else not_before
        return max(earliest, self._paused_until) - self._clock()

    def admit(self, not_before: float) -> Permit | None:
        """Return leave for one request, or None; see `ready_in_s`."""
        return None if self.ready_in_s(not_before) > 0 else self._breaker.admit()

    def answered(self, permit: Permit) -> None:
        """Note a request that brought passages."""
        self._breaker.succeed(permit)

    def failed(self, permit: Permit, error: AttemptError) -> None:
        """Note a request that went wrong."""
        self._last_error = error
        if error.trouble in (Trouble.BUSY, Trouble.REJECTED, Trouble.WRONG_ADDRESS):
            # Whoever answers so is alive.
            self._breaker.succeed(permit)
        else:
            self._breaker.fail(permit)
        if error.retry_after_s is not None:
            pause_s = error.retry_after_s * (1.0 + _PAUSE_JITTER * random.random())
            self._paused_until = max(self._paused_until, self._clock() + pause_s)

    def abandoned(self, permit: Permit) -> None:
        """Note a request that was cancelled."""
        self._breaker.abandon(permit)
