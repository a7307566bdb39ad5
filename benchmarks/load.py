"""Load on a retriever: closed-loop clients, open-loop arrivals, and what the server's processes spent on it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import aiohttp
import psutil


@dataclass
class Slot:
    """What one slot of load saw."""

    seconds: float = 0.0
    queries: int = 0
    cpu_s: float = 0.0
    rss_mb: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def qps(self) -> float:
        """Queries answered a second."""
        return self.queries / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of the server's CPU a query."""
        return 1000 * self.cpu_s / max(1, self.queries)

    @property
    def cores(self) -> float:
        """Cores the server got."""
        return self.cpu_s / self.seconds

    def percentile(self, share: float) -> float:
        """Return the nearest-rank percentile of the latencies in seconds; nan if there is none."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


@dataclass(frozen=True)
class Target:
    """A server under test."""

    name: str
    url: str
    pid: int

    def usage(self) -> tuple[float, float]:
        """Return CPU seconds and resident megabytes of the process and its children."""
        processes = [psutil.Process(self.pid)]
        processes += processes[0].children(recursive=True)
        cpu = memory = 0.0
        for process in processes:
            try:
                times = process.cpu_times()
                cpu += times.user + times.system
                memory += process.memory_info().rss / 2**20
            except psutil.NoSuchProcess:
                continue
        return cpu, memory


class Load:
    """Sends requests to one target and writes a slot."""

    def __init__(self, target: Target, queries: Sequence[str], *, batch: int, topk: int, seed: int) -> None:
        self.target = target
        self.slot = Slot()
        self._queries, self._batch, self._topk = queries, batch, topk
        self._rng = random.Random(seed)

    async def closed(self, clients: int, seconds: float) -> Slot:
        """Keep so many requests in flight."""

        async def client(http: aiohttp.ClientSession, end: float) -> None:
            while time.perf_counter() < end:
                await self._ask(http)

        return await self._measure(lambda http, end: [client(http, end) for _ in range(clients)], seconds)

    async def open(self, rate: float, seconds: float) -> Slot:
        """Send requests at random times, so many a second, whether the last ones were answered or not."""

        async def arrivals(http: aiohttp.ClientSession, end: float) -> None:
            asked = []
            while time.perf_counter() < end:
                asked.append(asyncio.create_task(self._ask(http)))
                await asyncio.sleep(self._rng.expovariate(rate))
            await asyncio.gather(*asked)

        return await self._measure(lambda http, end: [arrivals(http, end)], seconds)

    async def _measure(
        self, start: Callable[[aiohttp.ClientSession, float], Sequence[Awaitable[None]]], seconds: float
    ) -> Slot:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=300)) as http:
            cpu, _ = self.target.usage()
            started = time.perf_counter()
            await asyncio.gather(*start(http, started + seconds))
            self.slot.seconds = time.perf_counter() - started
        after, self.slot.rss_mb = self.target.usage()
        self.slot.cpu_s = after - cpu
        return self.slot

    async def _ask(self, http: aiohttp.ClientSession) -> None:
        body = {"queries": self._rng.choices(self._queries, k=self._batch), "topk": self._topk, "return_scores": True}
        started = time.perf_counter()
        try:
            async with http.post(self.target.url, json=body) as response:
                answer = await response.json()
                if response.status != 200 or len(answer["result"]) != self._batch:
                    raise ValueError(f"HTTP {response.status}")
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
            name = f"{type(error).__name__}: {error}"[:60]
            self.slot.errors[name] = self.slot.errors.get(name, 0) + 1
            # A server that refuses at once must not turn a client into a flood.
            await asyncio.sleep(0.1)
            return
        self.slot.latencies.append(time.perf_counter() - started)
        self.slot.queries += self._batch
