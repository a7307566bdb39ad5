"""Metrics from TensorBoard's event files (``trainer.logger=["tensorboard"]``)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from verl_llds.errors import RunFolderError
from verl_llds.report.metrics_log import MetricsLog


def read_events(paths: Sequence[Path]) -> MetricsLog:
    """Return the scalars of event files, each one start of the run, in the order of the starts.

    Raises:
        RunFolderError: TensorBoard is not installed.
    """
    try:
        from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
            SCALARS,
            EventAccumulator,
        )
    except ImportError as error:
        raise RunFolderError(
            f"reading {paths[0]} needs TensorBoard: pip install tensorboard, or log with "
            "trainer.logger='[console,file]' too"
        ) from error
    log = MetricsLog()
    for path in paths:
        events = EventAccumulator(str(path), size_guidance={SCALARS: 0})
        events.Reload()
        steps: dict[int, dict[str, float]] = defaultdict(dict)
        for name in events.Tags()[SCALARS]:
            for event in events.Scalars(name):
                steps[event.step][name] = event.value
        log.begin_piece()
        for step in sorted(steps):
            log.add(step, steps[step])
    return log
