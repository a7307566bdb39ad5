"""The order in which queries of waiting requests are taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever_server.jobs import Job, Key, Phase, Ticket
from retriever_server.turns import TurnQueue

SMALL, LARGE = 16, 100


@pytest.fixture(scope="module", autouse=True)
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop for the tickets' futures, which nobody awaits here."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    loop.close()
    asyncio.set_event_loop(None)


def ticket_of(name: str, count: int, queue: TurnQueue) -> Ticket:
    """A request of so many queries, queued."""
    jobs = [Job(Key(f"{name}{number}", 3), 10, 0.0) for number in range(count)]
    ticket = Ticket([job.key for job in jobs], asyncio.get_event_loop().create_future())
    for job in jobs:
        job.waiters.add(ticket)
        ticket.jobs[job.key] = job
        ticket.pending.append(job)
    queue.add(ticket, jobs)
    return ticket


def take(queue: TurnQueue, now: float = 0.0, max_jobs: int = 64) -> list[str]:
    """Take a batch that is over at once."""
    batch = queue.take(max_jobs=max_jobs, max_tokens=10_000, now=now)
    for job in batch:
        job.phase = Phase.OVER
    return [job.key.text for job in batch]


def test_alone_a_large_request_fills_its_batches() -> None:
    queue = TurnQueue()
    ticket_of("a", LARGE, queue)
    assert [len(take(queue)) for _ in range(3)] == [64, 36, 0]


def test_small_and_large_requests_go_by_turns() -> None:
    queue = TurnQueue()
    ticket_of("large", LARGE, queue)
    ticket_of("one", 1, queue)
    ticket_of("two", SMALL, queue)
    assert take(queue) == ["one0", *(f"two{number}" for number in range(SMALL))]
    assert take(queue) == [f"large{number}" for number in range(8)]
    ticket_of("three", 1, queue)
    assert take(queue) == ["three0"]
    assert len(take(queue)) == 8


def test_while_small_ones_come_one_batch_of_large_ones_is_with_the_engine() -> None:
    queue = TurnQueue()
    ticket_of("one", 1, queue)
    take(queue)
    ticket_of("large", LARGE, queue)
    held = queue.take(max_jobs=64, max_tokens=10_000, now=0.0)
    assert len(held) == 8
    assert take(queue) == []
    ticket_of("two", 1, queue)
    assert take(queue) == ["two0"]
    for job in held:
        job.phase = Phase.OVER
    assert len(take(queue)) == 8


def test_large_requests_take_turns_among_each_other_also_while_small_ones_come() -> None:
    queue = TurnQueue()
    ticket_of("one", 1, queue)
    take(queue)
    ticket_of("a", LARGE, queue)
    ticket_of("b", LARGE, queue)
    assert [{name[0] for name in take(queue)} for _ in range(4)] == [{"a"}, {"b"}, {"a"}, {"b"}]


def test_a_crowd_of_small_ones_leaves_large_ones_a_third() -> None:
    queue = TurnQueue()
    ticket_of("large", 1000, queue)
    for number in range(1000):
        ticket_of(f"small{number}-", 1, queue)
    taken = [take(queue) for _ in range(20)]
    assert sum(name.startswith("large") for batch in taken for name in batch) / sum(map(len, taken)) >= 1 / 3


def test_some_seconds_after_the_last_small_one_batches_are_full_again() -> None:
    queue = TurnQueue()
    ticket_of("one", 1, queue)
    take(queue, now=100.0)
    ticket_of("large", 300, queue)
    assert [len(take(queue, now=now)) for now in (100.1, 104.9, 105.1)] == [8, 8, 64]


def test_a_query_that_a_large_and_a_small_request_share_is_taken_with_the_small_one() -> None:
    queue = TurnQueue()
    large = ticket_of("large", LARGE, queue)
    shared = large.pending[-1]
    small = Ticket([shared.key], asyncio.get_event_loop().create_future())
    shared.waiters.add(small)
    small.jobs[shared.key] = shared
    small.pending.append(shared)
    queue.add(small, [])
    assert take(queue) == [shared.key.text]
    rest = [name for _ in range(20) for name in take(queue)]
    assert len(rest) == len(set(rest)) == LARGE - 1
    assert shared.key.text not in rest


@given(
    sizes=st.lists(st.integers(1, 60), max_size=12),
    withdrawn=st.sets(st.integers(0, 11)),
    max_jobs=st.integers(1, 64),
    pace=st.floats(0.0, 10.0),
)
def test_every_query_of_who_stays_is_taken_once(
    sizes: list[int], withdrawn: set[int], max_jobs: int, pace: float
) -> None:
    queue = TurnQueue()
    tickets = [ticket_of(f"{number}-", size, queue) for number, size in enumerate(sizes)]
    for number in withdrawn:
        if number < len(tickets):
            assert all(job.phase is Phase.OVER for job in queue.withdraw(tickets[number]))
    taken: list[str] = []
    while batch := take(queue, now=pace * len(taken), max_jobs=max_jobs):
        assert len(batch) <= max_jobs
        taken += batch
    expected = {f"{n}-{i}" for n, size in enumerate(sizes) if n not in withdrawn for i in range(size)}
    assert len(taken) == len(expected)
    assert set(taken) == expected
    assert queue.num_jobs == queue.num_tokens == 0
