"""Metrics summed over worker processes, through files they share."""

import contextlib
import os
import tempfile
from collections.abc import Iterator

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Read by prometheus-client when it is imported."""


@contextlib.contextmanager
def shared_metrics(num_workers: int) -> Iterator[None]:
    """Let all processes forked in this block count together. Enter it before prometheus-client is imported."""
    if num_workers == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="retriever-metrics-") as directory:
        os.environ[DIRECTORY_VARIABLE] = directory
        try:
            yield
        finally:
            del os.environ[DIRECTORY_VARIABLE]


def forget_worker(pid: int) -> None:
    """Take an ended worker out of the gauges; what it counted stays."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)  # type: ignore[no-untyped-call]
