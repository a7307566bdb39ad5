"""Metrics summed over worker processes, through files they share."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Read by prometheus-client when it is imported."""

_PREFIX = "retriever-metrics-"
_LOCK = "lock"


@contextlib.contextmanager
def shared_metrics(num_workers: int) -> Iterator[None]:
    """Let all processes forked in this block count together. Enter it before prometheus-client is imported."""
    if num_workers == 1:
        yield
        return
    _remove_left_behind()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as directory, _locked(Path(directory)):
        os.environ[DIRECTORY_VARIABLE] = directory
        try:
            yield
        finally:
            del os.environ[DIRECTORY_VARIABLE]


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Show that this process, or one forked in this block, lives."""
    new = directory / f"{_LOCK}.new"
    with new.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # Named when it is locked, so that nobody finds it unlocked.
        new.rename(directory / _LOCK)
        yield


def _remove_left_behind() -> None:
    """Remove the directories of servers that were killed, and whose workers have ended."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            with lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # Somebody lives, another server was faster, or it belongs to another user.
            continue
        shutil.rmtree(lock.parent, ignore_errors=True)


def forget_worker(pid: int) -> None:
    """Take an ended worker out of the gauges; what it counted stays."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)  # type: ignore[no-untyped-call]
