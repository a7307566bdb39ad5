"""Backoff and Retry-After as functions of values."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_llds.search.client.backoff import MAX_PAUSE_S, backoff_s, retry_after_s

NOW = datetime(1994, 11, 6, 8, 49, 30, tzinfo=timezone.utc)
JITTER = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(("num_rounds", "longest"), [(1, 0.25), (2, 0.5), (3, 1), (6, 8), (7, 10), (5000, 10)])
def test_backoff_doubles_up_to_ten_seconds(num_rounds: int, longest: float) -> None:
    assert backoff_s(num_rounds, 0.0) == longest


@given(st.integers(1, 10**6), JITTER)
def test_jitter_takes_at_most_half(num_rounds: int, jitter: float) -> None:
    longest = backoff_s(num_rounds, 0.0)
    assert longest / 2 <= backoff_s(num_rounds, jitter) <= longest <= backoff_s(num_rounds + 1, 0.0) <= 10


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("1", 1.0),
        (" 7 ", 7.0),
        ("2.5", 2.5),
        ("3.", 3.0),
        ("0", 0.25),
        ("86400", MAX_PAUSE_S),
        ("9" * 400, MAX_PAUSE_S),
        # The three forms of an HTTP date in RFC 9110, section 5.6.7.
        ("Sun, 06 Nov 1994 08:49:37 GMT", 7.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 7.0),
        ("Sun Nov  6 08:49:37 1994", 7.0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", MAX_PAUSE_S),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.25),
    ],
)
def test_both_forms_of_retry_after_are_read(header: str, seconds: float) -> None:
    assert retry_after_s(header, NOW) == seconds


@pytest.mark.parametrize(
    "header", ["", "soon", "-5", "\u00b2", "1e9", "nan", "inf", "1,5", "Sun, 99 Nov 1994 08:49:37"]
)
def test_any_other_retry_after_is_none(header: str) -> None:
    assert retry_after_s(header, NOW) is None


@given(st.text() | st.text("0123456789:,- GMTSunNov."))
def test_no_header_breaks_the_parser(header: str) -> None:
    seconds = retry_after_s(header, NOW)
    assert seconds is None or 0.25 <= seconds <= MAX_PAUSE_S


@given(st.floats(0.25, 60))
def test_seconds_are_taken_as_they_are(seconds: float) -> None:
    assert retry_after_s(f"{seconds:.3f}", NOW) == pytest.approx(seconds, abs=1e-3)


@given(st.integers(1, 60))
def test_a_date_is_as_far_away_as_it_says(seconds: int) -> None:
    header = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert retry_after_s(header, NOW) == seconds
