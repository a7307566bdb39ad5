"""How long to wait before a retriever is asked again."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

_FIRST_BACKOFF_S = 0.25
_MAX_BACKOFF_S = 10.0
_MAX_DOUBLINGS = 16

MAX_PAUSE_S = 60.0
"""Longest pause a retriever is granted by its Retry-After; a proxy that says an hour is asked again before."""

_SECONDS = re.compile(r"\d+(\.\d*)?", re.ASCII)


def backoff_s(num_rounds: int, jitter: float) -> float:
    """Return the seconds to wait after failed rounds: doubling from 0.25 up to 10, less up to a half.

    Args:
        num_rounds: failed rounds so far, at least 1.
        jitter: in [0, 1), drawn per wait, so that the episodes of a rollout do not return in step.
    """
    longest = min(_FIRST_BACKOFF_S * 2.0 ** min(num_rounds - 1, _MAX_DOUBLINGS), _MAX_BACKOFF_S)
    return longest * (1.0 - jitter / 2.0)


def retry_after_s(header: str, now: datetime) -> float | None:
    """Return the seconds a Retry-After header asks for, from 0.25 to 60, or None if it is neither of its two forms.

    Both forms of RFC 9110, section 10.2.3, are read: seconds (decimals are tolerated) and an HTTP date, of which a
    past one means now. A retriever that says 0 is still not asked without end.

    Args:
        header: the header's value.
        now: the present time, with a time zone.
    """
    text = header.strip()
    seconds = float(text) if _SECONDS.fullmatch(text) else _seconds_until(text, now)
    return None if seconds is None else min(max(seconds, _FIRST_BACKOFF_S), MAX_PAUSE_S)


def _seconds_until(date: str, now: datetime) -> float | None:
    try:
        then = parsedate_to_datetime(date)
    # Its parser indexes into what it split.
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if then.tzinfo is None:
        # HTTP dates are in GMT, which asctime's form does not say.
        then = then.replace(tzinfo=timezone.utc)
    return (then - now).total_seconds()
