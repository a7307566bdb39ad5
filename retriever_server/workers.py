"""Several processes on one listening socket."""

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

from retriever_server.errors import WorkerError
from retriever_server.orphans import end_with_parent

_POLL_S = 0.1
# A worker that dies sooner is not started again at once.
_MIN_LIFE_S = 5.0


class Workers:
    """Forks ``num_workers`` processes that serve a socket, and forks again for one that dies.

    Fork before anything has started threads: only what has been imported is shared.
    """

    def __init__(
        self,
        serve: Callable[[Callable[[], None]], None],
        listener: socket.socket,
        num_workers: int,
        announce: Callable[[], None],
        on_death: Callable[[int], None],
    ) -> None:
        """Prepare.

        Args:
            serve: runs in each worker until SIGTERM; calls its argument once it answers queries.
            listener: the socket; closed here when the service ends, so that only the workers hold it.
            num_workers: processes.
            announce: called once, when every worker answers queries.
            on_death: called with the id of a process that ended.
        """
        self._serve = serve
        self._listener = listener
        self._num_workers = num_workers
        self._announce = announce
        self._on_death = on_death
        self._started: dict[int, float] = {}
        self._num_ready = 0
        self._stopping = False
        self._start_after = 0.0
        self._reader, self._writer = os.pipe()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT and return when every worker has drained.

        Raises:
            WorkerError: A worker ended before all were ready.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            while not self._stopping or self._started:
                self._fork_missing()
                self._hear_ready()
                self._reap()
        finally:
            self._stop()
            for pid in list(self._started):
                os.waitpid(pid, 0)

    def _stop(self, *_: object) -> None:
        if not self._stopping:
            self._stopping = True
            self._listener.close()
        for pid in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _fork_missing(self) -> None:
        while not self._stopping and len(self._started) < self._num_workers and time.monotonic() >= self._start_after:
            # A signal between the fork and the entry would miss the new worker.
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                self._work(parent)
            self._started[pid] = time.monotonic()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))

    def _work(self, parent: int) -> None:
        """Be a worker; never returns."""
        status = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
            # A worker whose parent was killed would keep the port from the next server.
            end_with_parent(parent, signal.SIGTERM)
            os.close(self._reader)
            self._serve(self._tell_ready)
            status = 0
        except BaseException as error:
            print(f"retriever-server: worker {os.getpid()}: {error}", file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _tell_ready(self) -> None:
        os.write(self._writer, b".")

    def _hear_ready(self) -> None:
        if not select.select([self._reader], [], [], _POLL_S)[0]:
            return
        before = self._num_ready
        self._num_ready += len(os.read(self._reader, 64))
        if before < self._num_workers <= self._num_ready:
            self._announce()

    def _reap(self) -> None:
        for pid, started in list(self._started.items()):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                continue
            del self._started[pid]
            self._on_death(pid)
            if self._stopping:
                continue
            if self._num_ready < self._num_workers:
                raise WorkerError("a worker ended before all were ready; its own message says why.")
            print(f"retriever-server: worker {pid} ended and is started again", file=sys.stderr, flush=True)
            self._start_after = started + _MIN_LIFE_S
