"""Batching across requests: one queue, one worker thread.

While the engine works on one batch, requests queue up; when it is free it takes what is there, up to a
cap. So a lone request waits for nothing and a crowd shares forward passes, with no timer to tune.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from retriever_server.corpus import Hit
from retriever_server.errors import NotReadyError, OverloadedError, SearchFailedError

_log = logging.getLogger(__name__)

Search = Callable[[Sequence[str], int], list[list[Hit]]]

# Queries a request may put into a batch before the next request gets its turn.
_TURN = 16


@dataclass(eq=False, slots=True)
class _Job:
    queries: list[str]
    topk: int
    future: "asyncio.Future[list[list[Hit]]]"
    num_taken: int = 0
    answers: list[list[Hit]] = field(default_factory=list)

    @property
    def num_waiting(self) -> int:
        return len(self.queries) - self.num_taken


class Batcher:
    """Runs ``load`` and then every search it returns in one thread, so the engine needs no lock.

    All methods belong to one event loop.
    """

    def __init__(self, load: Callable[[], Search], *, max_batch: int, max_queue: int) -> None:
        self._load = load
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._jobs: deque[_Job] = deque()
        self._num_queued = 0
        self._work = asyncio.Event()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._ready: asyncio.Future[None] | None = None
        self._runner: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether the engine is loaded and warm."""
        return self._ready is not None and self._ready.done() and self._ready.exception() is None

    async def start(self) -> None:
        """Begin to load; returns at once."""
        self._ready = asyncio.get_running_loop().create_future()
        self._runner = asyncio.create_task(self._run(self._ready))

    async def wait_ready(self) -> None:
        """Wait for the engine. Raises whatever loading it raised."""
        assert self._ready is not None, "start() comes first"
        await asyncio.shield(self._ready)

    async def close(self) -> None:
        """Stop after the batch in progress. Requests still waiting are cancelled."""
        if self._runner is not None:
            self._runner.cancel()
        for job in self._jobs:
            job.future.cancel()
        await asyncio.to_thread(self._worker.shutdown)

    async def submit(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """Up to ``topk`` passages for each query, in order. Cancelling it takes the queries out of the queue.

        Raises:
            NotReadyError: The engine is still loading.
            OverloadedError: Too many queries are waiting.
            SearchFailedError: The engine failed.
        """
        if not self.ready:
            raise NotReadyError("the index is still loading; try again shortly")
        if self._num_queued + len(queries) > self._max_queue:
            raise OverloadedError(f"{self._num_queued} queries are waiting already; try again shortly")
        job = _Job(list(queries), topk, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._num_queued += job.num_waiting
        self._work.set()
        try:
            return await job.future
        finally:
            self._num_queued -= job.num_waiting
            job.num_taken = len(job.queries)

    async def _run(self, ready: "asyncio.Future[None]") -> None:
        loop = asyncio.get_running_loop()
        try:
            search = await loop.run_in_executor(self._worker, self._load)
        except Exception as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        while True:
            await self._work.wait()
            if batch := self._take():
                await self._answer(search, batch)
            else:
                self._work.clear()

    def _take(self) -> list[tuple[_Job, list[str]]]:
        """Take the next batch, turn by turn, so that a large request does not hold up small ones."""
        batch: list[tuple[_Job, list[str]]] = []
        room = self._max_batch
        while self._jobs and room:
            job = self._jobs.popleft()
            part = job.queries[job.num_taken :][: min(room, _TURN)]
            if not part:
                continue
            batch.append((job, part))
            job.num_taken += len(part)
            room -= len(part)
            if job.num_waiting:
                self._jobs.append(job)
        self._num_queued -= self._max_batch - room
        return batch

    async def _answer(self, search: Search, batch: list[tuple[_Job, list[str]]]) -> None:
        queries = [query for _, part in batch for query in part]
        topk = max(job.topk for job, _ in batch)
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._worker, search, queries, topk)
        except Exception as error:
            _log.exception("a batch of %d queries failed", len(queries))
            for job, _ in batch:
                if not job.future.done():
                    job.future.set_exception(SearchFailedError(f"the search failed: {type(error).__name__}"))
            return
        start = 0
        for job, part in batch:
            job.answers.extend(hits[: job.topk] for hits in found[start : start + len(part)])
            start += len(part)
            if len(job.answers) == len(job.queries) and not job.future.done():
                job.future.set_result(job.answers)
