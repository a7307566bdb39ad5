"""A circuit breaker: a retriever that keeps failing is asked by one probe at a time instead of by everyone.

It knows nothing of requests, events or waiting; the clock is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class BreakerState(str, Enum):
    """What a breaker lets through."""

    CLOSED = "closed"
    """Every request."""
    OPEN = "open"
    """None until the pause is over, then one: the probe."""
    HALF_OPEN = "half_open"
    """None: the probe is under way."""


@dataclass(frozen=True)
class Permit:
    """Leave to make one request, to be handed back with how it went."""

    generation: int
    """Which stretch between two changes of state it belongs to."""
    is_probe: bool
    """Whether the breaker's next state depends on it."""


class Breaker:
    """Opens after consecutive failures, then tries one request after pauses that double up to a bound.

    A permit from before the last change of state is ignored when it comes back: when a retriever dies with many
    requests in flight, the failures after the one that opened the breaker say nothing new.
    """

    def __init__(
        self, *, max_failures: int, first_pause_s: float, max_pause_s: float, clock: Callable[[], float]
    ) -> None:
        self._max_failures = max_failures
        self._first_pause_s = min(first_pause_s, max_pause_s)
        self._max_pause_s = max_pause_s
        self._clock = clock
        self._state = BreakerState.CLOSED
        self._generation = 0
        self._num_failures = 0
        self._pause_s = 0.0
        self._probe_at = 0.0

    @property
    def state(self) -> BreakerState:
        """What it lets through now."""
        return self._state

    @property
    def probe_at(self) -> float:
        """When it lets the next request through, by its clock: -inf if closed, inf while a probe is under way."""
        if self._state is BreakerState.OPEN:
            return self._probe_at
        return -math.inf if self._state is BreakerState.CLOSED else math.inf

    def admit(self) -> Permit | None:
        """Return leave for one request, or None; the caller has to hand it back in every case."""
        if self._clock() < self.probe_at:
            return None
        is_probe = self._state is BreakerState.OPEN
        if is_probe:
            self._enter(BreakerState.HALF_OPEN)
        return Permit(self._generation, is_probe)

    def succeed(self, permit: Permit) -> None:
        """Hand back a permit: the server works."""
        if permit.generation == self._generation:
            self._num_failures, self._pause_s = 0, 0.0
            if permit.is_probe:
                self._enter(BreakerState.CLOSED)

    def fail(self, permit: Permit) -> None:
        """Hand back a permit: the server does not work."""
        if permit.generation != self._generation:
            return
        self._num_failures += 1
        if permit.is_probe or self._num_failures >= self._max_failures:
            self._pause_s = min(max(self._pause_s * 2.0, self._first_pause_s), self._max_pause_s)
            self._probe_at = self._clock() + self._pause_s
            self._enter(BreakerState.OPEN)

    def abandon(self, permit: Permit) -> None:
        """Hand back a permit whose request was cancelled: nothing was learnt, so another probe may go at once."""
        if permit.is_probe and permit.generation == self._generation:
            self._enter(BreakerState.OPEN)

    def _enter(self, state: BreakerState) -> None:
        self._state = state
        self._generation += 1
