"""What is known of one retriever, by a clock that is moved by hand."""

from __future__ import annotations

import math

import pytest
from hand_clock import Clock

from verl_llds.search.client.attempt import AttemptError, Trouble
from verl_llds.search.client.endpoint import Endpoint

NEVER = -math.inf
"""End of a backoff that is over."""


@pytest.fixture
def endpoint(clock: Clock) -> Endpoint:
    return Endpoint("http://h/retrieve", max_wait_s=2.0, clock=clock)


def fail(endpoint: Endpoint, trouble: Trouble, times: int, retry_after_s: float | None = None) -> None:
    for _ in range(times):
        permit = endpoint.admit(NEVER)
        assert permit is not None
        endpoint.failed(permit, AttemptError(trouble, trouble.value, retry_after_s))


@pytest.mark.parametrize("trouble", [Trouble.UNREACHABLE, Trouble.TIMEOUT, Trouble.BAD_ANSWER])
def test_a_server_that_does_not_work_is_down_after_five_failures(endpoint: Endpoint, trouble: Trouble) -> None:
    fail(endpoint, trouble, 4)
    assert not endpoint.is_down
    assert endpoint.held_back_by is None
    fail(endpoint, trouble, 1)
    assert endpoint.is_down
    assert endpoint.held_back_by is not None
    assert endpoint.admit(NEVER) is None


@pytest.mark.parametrize("trouble", [Trouble.BUSY, Trouble.REJECTED])
def test_a_server_that_refuses_is_alive(endpoint: Endpoint, trouble: Trouble) -> None:
    fail(endpoint, Trouble.TIMEOUT, 4)
    fail(endpoint, trouble, 1)
    fail(endpoint, Trouble.TIMEOUT, 4)
    assert not endpoint.is_down


@pytest.mark.parametrize("trouble", [Trouble.BUSY, Trouble.REJECTED])
def test_a_probe_that_is_refused_ends_the_outage(endpoint: Endpoint, clock: Clock, trouble: Trouble) -> None:
    fail(endpoint, Trouble.UNREACHABLE, 5)
    clock.now += 60
    fail(endpoint, trouble, 1)
    assert not endpoint.is_down


def test_a_longest_wait_sees_four_probes_of_a_server_that_stays_down(endpoint: Endpoint, clock: Clock) -> None:
    fail(endpoint, Trouble.UNREACHABLE, 5)
    for _ in range(10):
        wait_s = endpoint.ready_in_s(NEVER)
        assert 0 < wait_s <= 0.5
        clock.now += wait_s
        fail(endpoint, Trouble.UNREACHABLE, 1)


def test_the_pause_it_asked_for_is_kept_and_stretched_by_a_tenth_at_most(endpoint: Endpoint, clock: Clock) -> None:
    fail(endpoint, Trouble.BUSY, 1, retry_after_s=10.0)
    assert 10.0 <= endpoint.ready_in_s(NEVER) <= 11.0
    assert endpoint.held_back_by is not None
    clock.now += 9.9
    assert endpoint.admit(NEVER) is None
    clock.now += 1.2
    assert endpoint.admit(NEVER) is not None
    assert endpoint.held_back_by is None


def test_a_shorter_pause_does_not_end_a_longer_one(endpoint: Endpoint, clock: Clock) -> None:
    permits = [endpoint.admit(NEVER) for _ in range(2)]
    for permit, retry_after_s in zip(permits, (10.0, 1.0), strict=True):
        assert permit is not None
        endpoint.failed(permit, AttemptError(Trouble.BUSY, "busy", retry_after_s))
    assert endpoint.ready_in_s(NEVER) >= 10.0


def test_a_backoff_holds_back_a_request_but_no_probe(endpoint: Endpoint, clock: Clock) -> None:
    assert endpoint.admit(clock.now + 1) is None
    assert endpoint.ready_in_s(clock.now + 1) == 1
    fail(endpoint, Trouble.TIMEOUT, 5)
    clock.now += 60
    assert endpoint.ready_in_s(clock.now + 1000) <= 0
    permit = endpoint.admit(clock.now + 1000)
    assert permit is not None
    assert permit.is_probe
    assert endpoint.ready_in_s(NEVER) == math.inf
