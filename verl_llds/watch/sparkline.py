"""A series of numbers as one line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-=+*#@"
"""For terminals whose encoding has no blocks."""

BROKEN = "!"
"""In place of values that are not finite."""


def sparkline(values: Sequence[float], width: int, levels: str = BLOCKS) -> str:
    """Return at most ``width`` characters, the latest value last, from the series' lowest value to its highest.

    A longer series is shown by means of equal stretches. Values that are not finite are `BROKEN`, and so is a stretch
    that holds one: they are what one looks for.
    """
    if not values or width < 1:
        return ""
    means = _stretches(values, width)
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    return "".join(_character(mean, low, high, levels) for mean in means)


def _stretches(values: Sequence[float], width: int) -> list[float]:
    count = min(width, len(values))
    bounds = [len(values) * number // count for number in range(count + 1)]
    return [_mean(values[bounds[number] : bounds[number + 1]]) for number in range(count)]


def _mean(values: Sequence[float]) -> float:
    # Divided first, so that a sum of large values is finite.
    return math.fsum(value / len(values) for value in values) if all(map(math.isfinite, values)) else math.nan


def _character(value: float, low: float, high: float, levels: str) -> str:
    if not math.isfinite(value):
        return BROKEN
    if high == low:
        return levels[len(levels) // 2]
    # Halved, so that the span of two large numbers of opposite sign is finite.
    share = (value / 2 - low / 2) / (high / 2 - low / 2)
    return levels[min(len(levels) - 1, int(share * len(levels)))]
