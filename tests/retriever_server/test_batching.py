"""The queue and the two stages."""

import asyncio

import orjson
import pytest
from stub_engine import Stub, occupy, started, texts

from retriever_server.batching import Batcher
from retriever_server.corpus import Hit
from retriever_server.errors import DeadlineError, NotReadyError, OverloadedError, SearchFailedError
from retriever_server.metrics import Metrics


def count(metrics: Metrics, name: str) -> float:
    (line,) = [line for line in metrics.render().decode().splitlines() if line.startswith(f"retriever_{name} ")]
    return float(line.split()[1])


async def test_requests_that_wait_together_share_a_batch(batcher: Batcher, stub: Stub) -> None:
    first = await occupy(batcher, stub)
    waiting = [asyncio.create_task(batcher.submit([f"q{i}", f"r{i}"], 1 + i % 3)) for i in range(20)]
    await asyncio.sleep(0)
    stub.encoding.gate.set()
    assert texts(await first) == ["first"]
    for i, found in enumerate(await asyncio.gather(*waiting)):
        assert texts(found) == [f"q{i}", f"r{i}"]
        assert [len(orjson.loads(answer.bare)) for answer in found] == [1 + i % 3] * 2
    assert [len(batch) for batch in stub.batches] == [1, 40]


async def test_a_large_request_lets_small_ones_pass(stub: Stub) -> None:
    batcher = await started(stub, max_batch=32)
    first = await occupy(batcher, stub)
    large = asyncio.create_task(batcher.submit([f"large{i}" for i in range(90)], 1))
    small = asyncio.create_task(batcher.submit(["small"], 1))
    await asyncio.sleep(0)
    stub.encoding.gate.set()
    await asyncio.gather(first, large, small)
    # It waits for a few of the large one's queries and shares its batch with none of them.
    assert stub.batches[1:3] == [[f"large{i}" for i in range(8)], ["small"]]
    assert texts(large.result()) == [f"large{i}" for i in range(90)]
    await batcher.close()


async def test_a_full_queue_is_refused_and_has_room_again(batcher: Batcher, stub: Stub) -> None:
    first = await occupy(batcher, stub)
    waiting = asyncio.create_task(batcher.submit([f"w{i}" for i in range(100)], 1))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await batcher.submit(["one more"], 1)
    stub.encoding.gate.set()
    await asyncio.gather(first, waiting)
    assert texts(await batcher.submit([f"later{i}" for i in range(100)], 1)) == [f"later{i}" for i in range(100)]


async def test_a_caller_who_left_is_never_worked_on(batcher: Batcher, stub: Stub) -> None:
    first = await occupy(batcher, stub)
    gone = asyncio.create_task(batcher.submit([f"gone{i}" for i in range(100)], 1))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    stays = asyncio.create_task(batcher.submit([f"stays{i}" for i in range(100)], 1))  # There is room at once.
    await asyncio.sleep(0)
    stub.encoding.gate.set()
    await asyncio.gather(first, stays)
    assert not any(query.startswith("gone") for batch in stub.batches for query in batch)


async def test_a_failing_batch_fails_its_callers_only(batcher: Batcher, stub: Stub) -> None:
    stub.encoding.gate.set()
    with pytest.raises(SearchFailedError, match="RuntimeError"):
        await batcher.submit(["poison"], 1)
    assert texts(await batcher.submit(["fine"], 1)) == ["fine"]


async def test_one_poisoned_query_fails_alone(stub: Stub) -> None:
    metrics = Metrics()
    batcher = await started(stub, metrics)
    first = await occupy(batcher, stub)
    names = ["poison" if i == 5 else "toxin" if i == 11 else "unscored" if i == 13 else f"q{i}" for i in range(16)]
    waiting = [asyncio.create_task(batcher.submit([name], 1)) for name in names]
    await asyncio.sleep(0)
    stub.encoding.gate.set()
    done = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert sorted(stub.batches[1]) == sorted(names)
    for name, result in zip(names, done[1:], strict=True):
        if name.startswith("q"):
            assert isinstance(result, list)
            assert texts(result) == [name]
        else:
            assert isinstance(result, SearchFailedError)
    assert count(metrics, "failed_queries_total") == 3
    await batcher.close()


async def test_identical_queries_are_done_once_also_across_requests(stub: Stub) -> None:
    metrics = Metrics()
    batcher = await started(stub, metrics)
    first = await occupy(batcher, stub)
    waiting = [asyncio.create_task(batcher.submit(["same", "same", f"own{i}"], 1)) for i in range(5)]
    late = asyncio.create_task(batcher.submit(["first"], 1))  # Already with the encoder.
    await asyncio.sleep(0)
    stub.encoding.gate.set()
    for i, found in enumerate(await asyncio.gather(*waiting)):
        assert texts(found) == ["same", "same", f"own{i}"]
    assert texts(await late) == texts(await first) == ["first"]
    assert sorted(stub.batches[1]) == sorted(["same", *(f"own{i}" for i in range(5))])
    assert (count(metrics, "encoded_queries_total"), count(metrics, "shared_queries_total")) == (7, 10)
    await batcher.close()


async def test_shared_work_goes_on_while_somebody_waits_for_it(batcher: Batcher, stub: Stub) -> None:
    first = await occupy(batcher, stub)
    gone = asyncio.create_task(batcher.submit(["gone", "shared"], 1))
    await asyncio.sleep(0)
    stays = asyncio.create_task(batcher.submit(["shared"], 1))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    stub.encoding.gate.set()
    assert texts(await stays) == ["shared"]
    await first
    assert stub.batches == [["first"], ["shared"]]


async def test_what_everybody_left_while_it_was_encoded_is_not_searched(batcher: Batcher, stub: Stub) -> None:
    first = await occupy(batcher, stub)
    stub.finding.entered.clear()
    first.cancel()
    await asyncio.sleep(0)
    stub.encoding.gate.set()
    stub.finding.gate.clear()
    second = asyncio.create_task(batcher.submit(["second"], 1))
    await asyncio.to_thread(stub.finding.entered.wait, 30)
    stub.finding.gate.set()
    assert texts(await second) == ["second"]


async def test_the_next_batch_is_encoded_while_one_is_searched(batcher: Batcher, stub: Stub) -> None:
    stub.encoding.gate.set()
    stub.finding.gate.clear()
    stub.finding.entered.clear()
    first = asyncio.create_task(batcher.submit(["first"], 1))
    await asyncio.to_thread(stub.finding.entered.wait, 30)
    rest = []
    for name in ("second", "third", "fourth"):
        stub.encoding.entered.clear()
        rest.append(asyncio.create_task(batcher.submit([name], 1)))
        await asyncio.to_thread(stub.encoding.entered.wait, 0.3)
    # One in either stage: more would only make batches small.
    assert stub.batches == [["first"], ["second"]]
    stub.finding.gate.set()
    assert [texts(found) for found in await asyncio.gather(first, *rest)] == [
        ["first"],
        ["second"],
        ["third"],
        ["fourth"],
    ]
    assert stub.batches[2:] == [["third", "fourth"]]


async def test_batches_keep_to_a_budget_of_tokens_and_are_sorted_by_length(stub: Stub) -> None:
    batcher = await started(stub, max_batch_tokens=64)
    first = await occupy(batcher, stub)
    queries = ["x" * length for length in (40, 4, 400, 20, 100, 60)]
    waiting = [asyncio.create_task(batcher.submit([query], 1)) for query in queries]
    await asyncio.sleep(0)
    stub.encoding.gate.set()
    await asyncio.gather(first, *waiting)
    assert [[len(query) for query in batch] for batch in stub.batches[1:]] == [[4, 40], [400], [20, 60, 100]]
    await batcher.close()


async def test_the_cache_answers_without_the_engine_and_knows_topk(stub: Stub) -> None:
    metrics = Metrics()
    stub.encoding.gate.set()
    batcher = await started(stub, metrics, cache_size=2)
    for query, topk in (("a", 1), ("a", 1), ("a", 2), ("a", 1), ("b", 1), ("a", 2)):
        (answer,) = await batcher.submit([query], topk)
        assert orjson.loads(answer.scored) == [{"document": query, "score": 1.0}] * topk
    # The last one had been forgotten: two answers fit.
    assert stub.batches == [["a"], ["a"], ["b"], ["a"]]
    assert (count(metrics, "cache_hits_total"), count(metrics, "cache_misses_total")) == (2, 4)
    assert count(metrics, "cache_entries") == 2
    assert count(metrics, "cache_bytes") > 0
    await batcher.close()


class Deep(Stub):
    """Searches as deep as is wanted, which changes what comes first; up to 3 passages it is the same depth."""

    def __init__(self) -> None:
        super().__init__()
        self.searches: list[tuple[list[str], int]] = []

    def depth(self, topk: int) -> int:
        return max(topk, 3)

    def find(self, encoded: list[str], topk: int) -> list[list[Hit]]:
        self.searches.append((list(encoded), topk))
        return [[Hit(orjson.dumps(f"{query} {self.depth(topk)}"), 1.0)] * topk for query in encoded]


async def test_nobody_is_searched_deeper_for_another(stub: Stub) -> None:
    deep = Deep()
    batcher = await started(deep)
    first = await occupy(batcher, deep)
    asked = [("a", 3), ("b", 9), ("c", 1), ("a", 9), ("d", 2)]
    waiting = [asyncio.create_task(batcher.submit([query], topk)) for query, topk in asked]
    await asyncio.sleep(0)
    deep.encoding.gate.set()
    await first
    for (query, topk), task in zip(asked, waiting, strict=True):
        assert orjson.loads((await task)[0].bare) == [f"{query} {max(topk, 3)}"] * topk
    # Encoded together, and searched together where nobody can tell.
    assert deep.batches[1:] == [["a", "b", "c", "d"]]
    assert deep.searches[2:] == [(["a", "c", "d"], 3), (["b", "a"], 9)]
    await batcher.close()


async def test_a_deadline_ends_the_wait_and_the_work(batcher: Batcher, stub: Stub) -> None:
    first = await occupy(batcher, stub)
    with pytest.raises(DeadlineError):
        await batcher.submit(["late"], 1, 0.05)
    stub.encoding.gate.set()
    await first
    assert texts(await batcher.submit(["next"], 1)) == ["next"]
    assert stub.batches == [["first"], ["next"]]


async def test_a_drain_ends_with_a_refusal(batcher: Batcher, stub: Stub) -> None:
    first = await occupy(batcher, stub)
    batcher.drain(0.05)
    assert not batcher.ready
    still = asyncio.create_task(batcher.submit(["still taken"], 1))
    with pytest.raises(NotReadyError, match="stops"):
        await first
    with pytest.raises(NotReadyError, match="stops"):
        await still
