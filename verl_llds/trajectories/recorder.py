"""Records steps in the background: what is slow happens in a thread, and nothing that fails there stops a training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from verl_llds.trajectories.rows import Context, StepBatch, step_table
from verl_llds.trajectories.store import TrajectoryStore

logger = logging.getLogger(__name__)

_MAX_WAITING = 2
"""Steps that may wait to be written: one more is let go, so that memory stays bounded on a slow disk."""


class TrajectoryRecorder:
    """Turns batches into files, one after another, in a thread of its own."""

    def __init__(self, store: TrajectoryStore, context: Context, last_step: int) -> None:
        """Begin after a step: 0, or that of the checkpoint a run resumes from. Files of later steps are removed."""
        self._store = store
        self._context = context
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="verl-llds-trajectories")
        self._waiting: list[Future[None]] = []
        self._has_failed = self._is_slow = self._is_full = False
        self._submit(lambda: self._begin(last_step))

    def record(self, batch: StepBatch) -> None:
        """Write a step soon; returns at once."""
        self._waiting = [future for future in self._waiting if not future.done()]
        if len(self._waiting) < _MAX_WAITING:
            self._submit(lambda: self._write(batch))
        elif not self._is_slow:
            self._is_slow = True
            _say(
                f"step {batch.step} is not recorded, since {self._store.folder} is written more slowly than steps "
                "come; others may be missing, too: raise diagnostics.trajectories.every or lower max_rows"
            )

    def close(self) -> None:
        """Wait until everything is written."""
        self._executor.shutdown(wait=True)

    def _submit(self, work: Callable[[], None]) -> None:
        self._waiting.append(self._executor.submit(self._guarded, work))

    def _guarded(self, work: Callable[[], None]) -> None:
        if self._has_failed:
            return
        try:
            work()
        # What cannot be looked at later is no reason to lose the run.
        except Exception as error:
            self._has_failed = True
            if not isinstance(error, OSError):
                logger.exception("recording trajectories failed")
            _say(f"no more trajectories are recorded, training goes on: {type(error).__name__}: {error}")

    def _begin(self, last_step: int) -> None:
        dropped = self._store.drop_after(last_step)
        if dropped:
            _say(
                f"{self._store.folder} held {len(dropped)} recorded steps after step {last_step}, which this run does "
                "anew: removed"
            )

    def _write(self, batch: StepBatch) -> None:
        dropped = self._store.write(batch.step, step_table(batch, self._context))
        if dropped and not self._is_full:
            self._is_full = True
            _say(
                f"{self._store.folder} is full (diagnostics.trajectories.max_bytes={self._store.max_bytes}): from "
                "here on recorded steps are thinned out"
            )


def _say(text: str) -> None:
    print(f"verl-llds: {text}", flush=True)
