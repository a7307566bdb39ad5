"""Encode a corpus into the file of its vectors, in this process or in several."""

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from retriever_server.cores import available_cores, share
from retriever_server.corpus import Corpus
from retriever_server.encoder import Encoder
from retriever_server.encoder_spec import EncoderSpec
from retriever_server.errors import EncoderError
from retriever_server.layout import OFFSETS, PASSAGES, VECTORS
from retriever_server.orphans import end_with_parent
from retriever_server.precision import split_devices
from retriever_server.settings import BuildSettings
from retriever_server.shard_log import ShardLog, begin_vectors, is_begun, write_vectors

_SHARD_LOG = "encoded.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    """What a process needs to encode any shard. Pickled to the workers."""

    settings: BuildSettings
    spec: EncoderSpec
    model: Path
    building: Path

    def encoder(self, device: str, threads: int | None) -> Encoder:
        settings = self.settings
        return Encoder(
            self.model,
            self.spec,
            device=device,
            batch_size=settings.batch_size,
            threads=threads,
            dtype=settings.dtype,
        )

    def corpus(self) -> Corpus:
        return Corpus(self.building / PASSAGES, self.building / OFFSETS)


def encode_corpus(settings: BuildSettings, spec: EncoderSpec, model: Path, building: Path) -> None:
    """Encode what is not yet encoded of the corpus in ``building``, shard by shard.

    Memory is that of the encoder and one shard a process. Progress goes to stderr with rate and time left.

    Raises:
        EncoderError: The encoder cannot be loaded.
        OSError: A shard cannot be written, for example because the disk is full.
    """
    task = _Task(settings=settings, spec=spec, model=model, building=building)
    count = len(task.corpus())
    if not is_begun(building / VECTORS, count=count, dim=spec.dim):
        # Without the vectors the log of what was written to them means nothing.
        (building / _SHARD_LOG).unlink(missing_ok=True)
        begin_vectors(building / VECTORS, count=count, dim=spec.dim)
    with ShardLog(building / _SHARD_LOG, count=count, shard_rows=settings.shard_rows) as log:
        if not log.waiting:
            return
        devices = split_devices(settings.device)
        devices *= max(1, settings.workers // len(devices))
        with tqdm(total=count, initial=log.num_done, desc="encoding", unit="passage") as progress:
            for start, stop in _encode(task, devices, log.waiting, progress):
                log.add(start, stop)


def _encode(task: _Task, devices: list[str], shards: list[tuple[int, int]], progress: Any) -> Iterator[tuple[int, int]]:
    """Yield every shard once it is on disk."""
    if len(devices) == 1:
        corpus, encoder = task.corpus(), task.encoder(devices[0], task.settings.threads)
        for start, stop in shards:
            _encode_shard(task, encoder, corpus, start, stop, progress.update)
            yield start, stop
        return
    # Not fork: torch's threads and CUDA do not survive it.
    context = multiprocessing.get_context("spawn")
    names = context.SimpleQueue()
    for name in devices:
        names.put(name)
    threads = task.settings.threads or share(available_cores(), len(devices))
    with ProcessPoolExecutor(len(devices), context, _begin_worker, (task, names, threads)) as pool:
        futures = {pool.submit(_encode_in_worker, start, stop): (start, stop) for start, stop in shards}
        try:
            for future in as_completed(futures):
                future.result()
                start, stop = futures[future]
                progress.update(stop - start)
                yield start, stop
        except BrokenProcessPool as error:
            raise EncoderError(
                "a worker process was ended from outside, most often for lack of memory; "
                "run again with fewer --workers, or a smaller --batch-size, to go on."
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _encode_shard(task: _Task, encoder: Encoder, corpus: Corpus, start: int, stop: int, on_progress: Any) -> None:
    vectors = encoder.encode_passages(corpus.contents(start, stop), on_progress)
    write_vectors(task.building / VECTORS, start, vectors.tobytes(), task.spec.dim)


class _Worker:
    """What a worker process keeps from shard to shard."""

    def __init__(self, task: _Task, device: str, threads: int) -> None:
        self._task, self._device, self._threads = task, device, threads
        self._loaded: tuple[Encoder, Corpus] | None = None

    def encode(self, start: int, stop: int) -> None:
        # Loaded with the first shard: what is raised here reaches the parent, from an initializer it does not.
        if self._loaded is None:
            self._loaded = self._task.encoder(self._device, self._threads), self._task.corpus()
        _encode_shard(self._task, *self._loaded, start, stop, lambda num_done: None)


_worker: _Worker | None = None


def _begin_worker(task: _Task, names: Any, threads: int) -> None:
    global _worker
    # A worker whose parent was killed would wait for its next shard forever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    end_with_parent(parent.pid, signal.SIGKILL)
    # Ctrl-C reaches the whole group; the parent alone decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker = _Worker(task, names.get(), threads)


def _encode_in_worker(start: int, stop: int) -> None:
    assert _worker is not None
    _worker.encode(start, stop)
