"""A retriever under load, beside a peer: ``python benchmarks/bench_retriever.py --url URL --pid N``.

Drives any server of Search-R1's ``/retrieve``. With ``--peer URL --peer-pid N`` a second one is driven in alternating
slots of the same run, so that a busy machine slows both alike; compare CPU milliseconds a query and ratios, not queries
a second, and look at the cores each server got. Scenarios:

* ``single``: closed loop, 64 clients with one query each
* ``batch``: closed loop, one client with 512 queries
* ``open``: arrivals at ``--rate`` a second, one query each
* ``long``: ``single`` with 2 % very long queries
* ``beside``: one query at a time while another client sends batches of 512

``--own INDEX`` measures encoder and index of our own in this process on the same batches: what the service adds to it
is the ratio. ``--soak MINUTES`` prints the slope of the server's memory after the third minute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from load import Load, Slot, Target

LONG_WORDS = 3000
LONG_SHARE = 0.02


def read_queries(path: Path, count: int, seed: int) -> list[str]:
    """Return questions, one a line, or made of passages of a corpus in JSON lines."""
    rng = random.Random(seed)
    lines = path.read_text().splitlines()
    if path.suffix != ".jsonl":
        return lines
    words = [json.loads(line)["contents"].split() for line in rng.sample(lines, min(count, len(lines)))]
    return [" ".join(rng.sample(one, min(len(one), rng.randint(4, 14)))) for one in words]


def with_long_ones(queries: Sequence[str]) -> list[str]:
    """Return the queries with 2 % of them thousands of words long."""
    long = " ".join(" ".join(queries[:600]).split()[:LONG_WORDS])
    step = round(1 / LONG_SHARE)
    return [long if number % step == 0 else query for number, query in enumerate(queries)]


async def run_slot(
    scenario: str, target: Target, queries: Sequence[str], options: argparse.Namespace, seed: int
) -> Slot:
    """Drive one server for one slot."""
    shared = {"topk": options.topk, "seed": seed}
    if scenario == "batch":
        return await Load(target, queries, batch=512, **shared).closed(1, options.slot_s)
    if scenario == "open":
        return await Load(target, queries, batch=1, **shared).open(options.rate, options.slot_s)
    if scenario == "long":
        return await Load(target, with_long_ones(queries), batch=1, **shared).closed(options.clients, options.slot_s)
    if scenario == "beside":
        batches = Load(target, queries, batch=512, **shared).closed(1, options.slot_s)
        single = Load(target, queries, batch=1, **shared).closed(1, options.slot_s)
        _, slot = await asyncio.gather(batches, single)
        return slot
    return await Load(target, queries, batch=1, **shared).closed(options.clients, options.slot_s)


async def compare(targets: Sequence[Target], queries: Sequence[str], options: argparse.Namespace) -> None:
    """Alternate the servers through every scenario and print a table of medians."""
    print("| scenario | server | QPS | cores | CPU ms/query | p50 s | p95 s | p99 s | RSS MB | errors |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for scenario in options.scenarios:
        slots: dict[str, list[Slot]] = {target.name: [] for target in targets}
        for number in range(options.slots):
            for target in targets:
                slots[target.name].append(await run_slot(scenario, target, queries, options, seed=number))
        for name, measured in slots.items():
            print(row(scenario, name, measured), flush=True)
        if len(targets) == 2:
            print(ratios(scenario, *slots.values()), flush=True)


def row(scenario: str, name: str, slots: Sequence[Slot]) -> str:
    """Return one line of the table."""

    def median(of: str, share: float = 0.0) -> float:
        return statistics.median(slot.percentile(share) if of == "latency" else getattr(slot, of) for slot in slots)

    errors = sum(sum(slot.errors.values()) for slot in slots)
    kinds = {kind for slot in slots for kind in slot.errors}
    return (
        f"| {scenario} | {name} | {median('qps'):.1f} | {median('cores'):.2f} | {median('cpu_ms'):.2f} "
        f"| {median('latency', 0.5):.3f} | {median('latency', 0.95):.3f} | {median('latency', 0.99):.3f} "
        f"| {median('rss_mb'):.0f} | {errors} {'; '.join(sorted(kinds))} |"
    )


def ratios(scenario: str, ours: Sequence[Slot], peer: Sequence[Slot]) -> str:
    """Return the peer's cost by ours, pair by pair: above 1 ours is better."""
    pairs = list(zip(ours, peer, strict=True))
    cpu = [other.cpu_ms / one.cpu_ms for one, other in pairs]
    p99 = [other.percentile(0.99) / one.percentile(0.99) for one, other in pairs]
    return (
        f"\n{scenario}: the peer takes **{statistics.median(cpu):.1f}** times the CPU a query "
        f"({min(cpu):.1f} to {max(cpu):.1f}), its p99 is {statistics.median(p99):.1f} times ours "
        f"({min(p99):.1f} to {max(p99):.1f})\n"
    )


async def soak(target: Target, queries: Sequence[str], options: argparse.Namespace) -> None:
    """Load one server for minutes and print how fast its memory grows after the third."""
    load = asyncio.create_task(
        Load(target, queries, batch=1, topk=options.topk, seed=0).closed(options.clients, 60 * options.soak)
    )
    points: list[tuple[float, float]] = []
    started = time.monotonic()
    while not load.done():
        await asyncio.sleep(5)
        minute = (time.monotonic() - started) / 60
        points.append((minute, target.usage()[1]))
    slot = await load
    late = [point for point in points if point[0] > 3] or points
    slope = statistics.linear_regression(*zip(*late, strict=True)).slope
    print(
        f"{slot.queries} queries in {options.soak:g} minutes; RSS {points[0][1]:.0f} -> {points[-1][1]:.0f} MB, ",
        end="",
    )
    print(f"slope after minute {late[0][0]:.1f}: {slope:+.2f} MB a minute")


def measure_own(index: Path, queries: Sequence[str], options: argparse.Namespace) -> None:
    """Print what encoder and index cost by themselves, on batches of the sizes given."""
    from retriever_server.engine import Engine
    from retriever_server.manifest import Manifest
    from retriever_server.settings import ServeSettings

    settings = ServeSettings(index=index, threads=options.threads)
    engine = Engine.load(settings, Manifest.load(index))
    for size in (16, 64, 128, 512):
        costs = []
        for number in range(options.slots * 3):
            batch = random.Random(number).choices(queries, k=size)
            started = time.process_time()
            engine.search(batch, options.topk)
            costs.append((time.process_time() - started) * 1000 / size)
        print(f"in process, batches of {size}: {statistics.median(costs):.2f} CPU ms a query")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="our server's address, /retrieve included")
    parser.add_argument("--pid", type=int)
    parser.add_argument("--peer")
    parser.add_argument("--peer-pid", type=int)
    parser.add_argument("--queries", type=Path, required=True, help="one a line, or a corpus in JSON lines")
    parser.add_argument("--scenarios", nargs="+", default=["single", "batch"])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--slot-s", type=float, default=20.0)
    parser.add_argument("--slots", type=int, default=3)
    parser.add_argument("--topk", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--own", type=Path, metavar="INDEX")
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    options = parser.parse_args()
    queries = read_queries(options.queries, 5000, seed=0)
    if options.own:
        measure_own(options.own, queries, options)
        return
    targets = [Target("ours", options.url, options.pid)]
    if options.peer:
        targets.append(Target("peer", options.peer, options.peer_pid))
    asyncio.run(soak(targets[0], queries, options) if options.soak else compare(targets, queries, options))


if __name__ == "__main__":
    main()
