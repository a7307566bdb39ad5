"""Child processes that are gone when their parent is done, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psutil

MARK = "VERL_LLDS_RUN_ID"
"""Environment variable by which a run knows its own processes, Ray's and vLLM's detached ones included."""

_GRACE_S = 15.0


class Run:
    """Starts processes that carry this run's mark and ends every process that carries it."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex

    def start(
        self, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own, its output appended to ``log``."""
        with log.open("ab") as output:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Of its own, so that Ctrl-C reaches this process alone and the order of ending is ours.
                start_new_session=True,
                env={**os.environ, **(env or {}), MARK: self.mark},
            )

    def call(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> int:
        """Run a command in the foreground, its output on ours, and return its exit status."""
        return subprocess.run(list(command), env={**os.environ, **(env or {}), MARK: self.mark}).returncode

    def end_all(self) -> None:
        """Ask every process of this run to end, wait, and kill those that do not."""
        known: set[psutil.Process] = set()
        for send in (psutil.Process.terminate, psutil.Process.kill):
            known = {process for process in known | self._alive() if process.is_running()}
            for process in known:
                try:
                    send(process)
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(known, timeout=_GRACE_S)

    def _alive(self) -> set[psutil.Process]:
        """Return the marked processes and all that descend from them.

        A process that changes its title, as Ray's agents do, may overwrite its environment and the mark in it; it
        is found through its parent, hence before any of them is ended.
        """
        found: set[psutil.Process] = set()
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.environ().get(MARK) == self.mark:
                    found.add(process)
                    found.update(process.children(recursive=True))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


@contextmanager
def own_processes() -> Iterator[Run]:
    """Yield a `Run` whose processes have ended when the block is left, by return, error or signal."""
    run = Run()
    previous = {number: signal.signal(number, _leave) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield run
    finally:
        for number in previous:
            # A second Ctrl-C must not cut the cleaning short.
            signal.signal(number, signal.SIG_IGN)
        run.end_all()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    print(f"\nstopped by {signal.Signals(number).name}; ending this run's processes", file=sys.stderr)
    raise SystemExit(128 + number)
