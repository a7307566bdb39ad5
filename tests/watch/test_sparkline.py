"""Histories in one line: never longer than there is room, latest value last, broken ones visible."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from verl_llds.watch.sparkline import ASCII, BLOCKS, BROKEN, sparkline


@given(st.lists(st.floats()), st.integers(0, 50))
def test_any_series_fits(values: list[float], width: int) -> None:
    text = sparkline(values, width)
    assert len(text) == min(len(values), width)
    assert set(text) <= set(BLOCKS + BROKEN)
    if len(values) <= width:
        assert [character == BROKEN for character in text] == [not math.isfinite(value) for value in values]
    elif width:
        assert (BROKEN in text) == (not all(map(math.isfinite, values)))


def test_lowest_and_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == BLOCKS
    assert sparkline([0, 7], 8, ASCII) == ASCII[0] + ASCII[-1]
    assert sparkline([0, 0, 9, 9], 2) == BLOCKS[0] + BLOCKS[-1]
    assert len(set(sparkline([5.0] * 9, 4))) == 1
