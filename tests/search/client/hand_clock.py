"""A clock that is moved by hand."""

from __future__ import annotations


class Clock:
    """Seconds since some start."""

    now = 100.0

    def __call__(self) -> float:
        return self.now
