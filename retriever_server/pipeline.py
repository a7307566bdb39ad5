"""The two stages of a search in threads of their own: one batch is encoded while another is searched."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from retriever_server.jobs import Job, Key
from retriever_server.stages import Stages
from retriever_server.wire import Answer, make_answer

T = TypeVar("T")


class Pipeline:
    """Runs a retrieval method off the event loop: ``encode`` in one thread, ``find`` in ``num_finders`` others."""

    def __init__(self, load: Callable[[], Stages[Any]], *, num_finders: int) -> None:
        self._load = load
        self._encoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode")
        self._finders = ThreadPoolExecutor(max_workers=num_finders, thread_name_prefix="find")
        self._stages: Stages[Any] | None = None

    async def open(self) -> None:
        """Load, and answer one query through both threads. Raises whatever that raises."""
        stages = await asyncio.get_running_loop().run_in_executor(self._encoder, self._load)
        self._stages = stages
        _, encoded = await self.encode(["warm-up"])
        await asyncio.get_running_loop().run_in_executor(self._finders, stages.find, encoded, 1)

    async def encode(self, texts: Sequence[str]) -> tuple[float, Any]:
        """Encode distinct queries; the seconds it took, and what `find` needs."""
        assert self._stages is not None, "open() comes first"
        return await asyncio.get_running_loop().run_in_executor(self._encoder, _timed, self._stages.encode, texts)

    async def find(self, encoded: Any, texts: Sequence[str], jobs: Sequence[Job]) -> tuple[float, list[Answer]]:
        """Search for encoded queries; the seconds it took, and one answer a job."""
        assert self._stages is not None, "open() comes first"
        return await asyncio.get_running_loop().run_in_executor(
            self._finders, _timed, _find, self._stages, encoded, texts, jobs
        )

    async def close(self) -> None:
        """End the threads after what they are doing."""
        for threads in (self._encoder, self._finders):
            await asyncio.to_thread(threads.shutdown, cancel_futures=True)


def _timed(function: Callable[..., T], *arguments: Any) -> tuple[float, T]:
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def _find(stages: Stages[Any], encoded: Any, texts: Sequence[str], jobs: Sequence[Job]) -> list[Answer]:
    by_text = dict(zip(texts, encoded, strict=True))
    # A neighbour that is searched deeper must not change an answer. Nearly always all want the same.
    groups: dict[int, list[Key]] = {}
    for job in jobs:
        groups.setdefault(stages.depth(job.key.topk), []).append(job.key)
    answers: dict[Key, Answer] = {}
    for keys in groups.values():
        chosen = list(dict.fromkeys(key.text for key in keys))
        found = stages.find([by_text[text] for text in chosen], max(key.topk for key in keys))
        if len(found) != len(chosen):
            raise ValueError(f"{len(found)} answers to {len(chosen)} queries")
        hits = dict(zip(chosen, found, strict=True))
        answers.update((key, make_answer(hits[key.text][: key.topk])) for key in keys)
    return [answers[job.key] for job in jobs]
