"""Batching across requests: one queue, two stages, no timer.

While one batch is encoded, requests queue up; when the encoder is free it takes what is there, up to a cap. So a
lone request waits for nothing and a crowd shares forward passes.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from retriever_server.admission import Admission
from retriever_server.errors import BusyError, NotReadyError, SearchFailedError
from retriever_server.jobs import Job, Ticket
from retriever_server.metrics import Metrics
from retriever_server.pipeline import Pipeline
from retriever_server.service_settings import ServiceSettings
from retriever_server.stages import Stages
from retriever_server.wire import Answer

_log = logging.getLogger(__name__)


class Batcher:
    """Answers queries with one retrieval method, loaded by ``load``. All methods belong to one event loop."""

    def __init__(
        self,
        load: Callable[[], Stages[Any]],
        settings: ServiceSettings,
        metrics: Metrics,
        *,
        max_chars: int = 1 << 15,
        num_finders: int = 1,
    ) -> None:
        """``max_chars``: how much of a query any encoder may read; ``num_finders``: threads that may search at once."""
        self._metrics = metrics
        self._admission = Admission(settings, metrics, max_chars=max_chars)
        self._pipeline = Pipeline(load, num_finders=num_finders)
        # One batch that is encoded or waits for a finder, beside those being searched.
        self._slots = asyncio.Semaphore(num_finders + 1)
        self._redo: deque[list[Job]] = deque()
        self._work = asyncio.Event()
        self._ready: asyncio.Future[None] | None = None
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether the service answers queries and means to go on: it is loaded, warm and was not told to stop."""
        return self._is_loaded and not self._stopping

    @property
    def loading(self) -> bool:
        """Whether the engine is neither there nor failed to load: every request is refused."""
        return self._ready is None or not self._ready.done()

    @property
    def _is_loaded(self) -> bool:
        return self._ready is not None and self._ready.done() and self._ready.exception() is None

    async def start(self) -> None:
        """Begin to load, unless that was begun; returns at once."""
        if self._ready is not None:
            return
        self._ready = asyncio.get_running_loop().create_future()
        self._spawn(self._run(self._ready))

    async def wait_ready(self) -> None:
        """Wait for the engine. Raises whatever loading it raised."""
        assert self._ready is not None, "start() comes first"
        await asyncio.shield(self._ready)

    def drain(self, drain_s: float) -> None:
        """Say not ready, but answer what still comes; what is not answered in ``drain_s`` seconds is refused then."""
        if not self._stopping:
            self._stopping = True
            asyncio.get_running_loop().call_later(drain_s, self._refuse_all)

    async def close(self) -> None:
        """Stop after what the threads are doing. Requests still waiting are refused."""
        self._stopping = True
        self._refuse_all()
        for task in self._tasks:
            task.cancel()
        await self._pipeline.close()

    def admit(self, queries: Sequence[str], topk: int, deadline_s: float | None = None) -> Ticket:
        """Take a request in; its future gets one answer per query, in order, or a BusyError or SearchFailedError.

        ``deadline_s`` seconds from now it is refused; None, or more, means the service's own deadline.

        Raises:
            NotReadyError: The engine is still loading.
            OverloadedError: Too many queries wait, or more than can be answered before the deadline.
        """
        if not self._is_loaded:
            raise NotReadyError("the index is still loading; try again shortly", "loading")
        ticket = self._admission.admit(queries, topk, deadline_s)
        self._work.set()
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Nobody waits for this request any more: what only it wanted is not done."""
        self._admission.withdraw(ticket)

    async def submit(self, queries: Sequence[str], topk: int, deadline_s: float | None = None) -> list[Answer]:
        """`admit` and wait. Cancelling it withdraws the request."""
        ticket = self.admit(queries, topk, deadline_s)
        try:
            return await ticket.future
        finally:
            self.withdraw(ticket)

    async def _run(self, ready: "asyncio.Future[None]") -> None:
        try:
            await self._pipeline.open()
        except Exception as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        while True:
            await self._slots.acquire()
            if not await self._encode(await self._next_batch()):
                self._slots.release()

    async def _next_batch(self) -> list[Job]:
        while True:
            if self._redo:
                if batch := self._admission.drop_unwanted(self._redo.popleft()):
                    return batch
            elif batch := self._admission.take():
                return batch
            else:
                self._work.clear()
                await self._work.wait()

    async def _encode(self, batch: list[Job]) -> bool:
        """Encode a batch and send it on to be searched; returns whether it went on."""
        started = asyncio.get_running_loop().time()
        texts = list(dict.fromkeys(job.key.text for job in batch))
        self._metrics.encoded_queries.inc(len(texts))
        self._metrics.batch_queries.observe(len(texts))
        self._metrics.batch_tokens.observe(sum(job.num_tokens for job in batch))
        try:
            seconds, encoded = await self._pipeline.encode(texts)
        except Exception as error:
            self._failed(batch, error)
            return False
        self._metrics.encode_seconds.observe(seconds)
        if not any(job.waiters for job in batch):
            self._admission.drop_unwanted(batch)
            return False
        self._spawn(self._find(batch, texts, encoded, started))
        return True

    async def _find(self, batch: list[Job], texts: list[str], encoded: Any, started: float) -> None:
        try:
            seconds, answers = await self._pipeline.find(encoded, texts, batch)
        except Exception as error:
            self._failed(batch, error)
        else:
            self._metrics.find_seconds.observe(seconds)
            self._admission.settle(batch, answers, started)
        finally:
            self._slots.release()
            # What waited for this batch to be over may be taken now.
            self._work.set()

    def _failed(self, batch: list[Job], error: Exception) -> None:
        if isinstance(error, BusyError):
            self._admission.fail(batch, error)
        elif len(batch) > 1:
            # One of them may be to blame: its neighbours must not pay for it.
            middle = len(batch) // 2
            self._redo.extend([batch[:middle], batch[middle:]])
            self._work.set()
        else:
            _log.error("the search for a query of %d characters failed", len(batch[0].key.text), exc_info=error)
            self._metrics.failed_queries.inc()
            self._admission.fail(batch, SearchFailedError(f"the search failed: {type(error).__name__}"))

    def _refuse_all(self) -> None:
        self._admission.refuse_all(NotReadyError("the service stops; try again shortly", "stopping"))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
