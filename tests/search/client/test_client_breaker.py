"""The circuit breaker by a clock that is moved by hand."""

from __future__ import annotations

import math

import pytest
from hand_clock import Clock
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from verl_llds.search.client.breaker import Breaker, BreakerState, Permit

MAX_FAILURES, FIRST_PAUSE_S, MAX_PAUSE_S = 3, 1.0, 5.0


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(max_failures=MAX_FAILURES, first_pause_s=FIRST_PAUSE_S, max_pause_s=MAX_PAUSE_S, clock=clock)


def admitted(breaker: Breaker) -> Permit:
    permit = breaker.admit()
    assert permit is not None
    return permit


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.fail(admitted(breaker))


def test_it_opens_after_consecutive_failures_only(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.succeed(admitted(breaker))
    fail(breaker, 2)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 1)
    assert breaker.state is BreakerState.OPEN
    assert breaker.admit() is None


def test_after_the_pause_one_probe_goes_through(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += FIRST_PAUSE_S
    probe = admitted(breaker)
    assert probe.is_probe
    assert breaker.state is BreakerState.HALF_OPEN
    clock.now += 1000
    assert breaker.admit() is None
    breaker.succeed(probe)
    assert breaker.state is BreakerState.CLOSED
    assert not admitted(breaker).is_probe
    assert not admitted(breaker).is_probe


def test_pauses_double_up_to_a_bound_and_start_again_after_a_success(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    pauses = []
    for _ in range(5):
        pauses.append(breaker.probe_at - clock.now)
        clock.now = breaker.probe_at
        breaker.fail(admitted(breaker))
    assert pauses == [1, 2, 4, 5, 5]
    clock.now = breaker.probe_at
    breaker.succeed(admitted(breaker))
    fail(breaker, 3)
    assert breaker.probe_at - clock.now == 1


def test_a_cancelled_probe_makes_room_for_another_at_once(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += FIRST_PAUSE_S
    breaker.abandon(admitted(breaker))
    assert admitted(breaker).is_probe
    assert breaker.admit() is None


def test_a_cancelled_request_is_neither_failure_nor_success(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.abandon(admitted(breaker))
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 1)
    assert breaker.state is BreakerState.OPEN


def test_failures_that_were_in_flight_when_it_opened_do_not_lengthen_the_pause(breaker: Breaker, clock: Clock) -> None:
    late = [admitted(breaker) for _ in range(20)]
    fail(breaker, 3)
    first_probe_at = breaker.probe_at
    clock.now += 0.5
    for permit in late[:10]:
        breaker.fail(permit)
    assert breaker.probe_at == first_probe_at
    clock.now += 0.5
    probe = admitted(breaker)
    for permit in late[10:]:
        breaker.fail(permit)
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.succeed(probe)
    assert breaker.state is BreakerState.CLOSED


def test_the_first_pause_is_no_longer_than_the_longest(clock: Clock) -> None:
    breaker = Breaker(max_failures=1, first_pause_s=1.0, max_pause_s=0.1, clock=clock)
    fail(breaker, 1)
    assert breaker.probe_at == clock.now + 0.1


class AnyOrder(RuleBasedStateMachine):
    """Requests that come, end and are cancelled in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(
            max_failures=MAX_FAILURES, first_pause_s=FIRST_PAUSE_S, max_pause_s=MAX_PAUSE_S, clock=self.clock
        )
        self.out: list[Permit] = []

    @rule(seconds=st.floats(0, 2 * MAX_PAUSE_S))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def ask(self) -> None:
        probe_at, state = self.breaker.probe_at, self.breaker.state
        permit = self.breaker.admit()
        assert (permit is not None) == (probe_at <= self.clock.now)
        if permit is not None:
            assert permit.is_probe == (state is BreakerState.OPEN)
            self.out.append(permit)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), how=st.sampled_from(["succeed", "fail", "abandon"]))
    def end(self, data: st.DataObject, how: str) -> None:
        permit = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        getattr(self.breaker, how)(permit)
        if permit.is_probe:
            assert self.breaker.state is (BreakerState.CLOSED if how == "succeed" else BreakerState.OPEN)

    @invariant()
    def one_probe_exactly_while_half_open(self) -> None:
        probes = [permit for permit in self.out if permit.is_probe]
        assert len(probes) == (self.breaker.state is BreakerState.HALF_OPEN)

    @invariant()
    def the_next_probe_is_never_far(self) -> None:
        if self.breaker.state is BreakerState.OPEN:
            assert self.breaker.probe_at <= self.clock.now + MAX_PAUSE_S
        else:
            assert math.isinf(self.breaker.probe_at)


TestAnyOrder = AnyOrder.TestCase
