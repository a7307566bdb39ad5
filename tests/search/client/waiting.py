"""Waiting in tests, on a machine that may be busy with something else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

SLACK_S = 5.0
"""What a busy machine may add to a wait. Servers that hang, and pauses not to be waited for, take 20 s and more."""

_PATIENCE_S = 15.0


async def until(condition: Callable[[], object]) -> None:
    """Wait until something has come about, and fail if it does not."""
    end = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it has not come about"
        await asyncio.sleep(0.01)
