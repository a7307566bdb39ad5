from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from retriever_server.padding import cheapest_split, round_length

rising = st.lists(st.integers(1, 512), max_size=40).map(sorted)


def cost(lengths: list[int], batches: list[slice], pass_tokens: int) -> int:
    return sum(len(lengths[one]) * max(lengths[one]) + pass_tokens for one in batches)


def every_split(count: int, size: int) -> list[list[slice]]:
    if not count:
        return [[]]
    return [
        [*before, slice(count - last, count)]
        for last in range(1, min(size, count) + 1)
        for before in every_split(count - last, size)
    ]


@given(rising, st.integers(1, 40), st.integers(0, 100))
def test_the_batches_hold_every_text_once_and_no_more_than_fit(lengths: list[int], size: int, pass_tokens: int) -> None:
    batches = cheapest_split(lengths, size, pass_tokens=pass_tokens)
    assert [length for one in batches for length in lengths[one]] == lengths
    assert all(before.stop == after.start for before, after in pairwise(batches))
    assert all(1 <= one.stop - one.start <= size for one in batches)


@given(st.lists(st.integers(1, 64), max_size=9).map(sorted), st.integers(1, 9), st.integers(0, 64))
def test_no_other_split_costs_less(lengths: list[int], size: int, pass_tokens: int) -> None:
    found = cheapest_split(lengths, size, pass_tokens=pass_tokens)
    least = min(cost(lengths, split, pass_tokens) for split in every_split(len(lengths), size))
    assert cost(lengths, found, pass_tokens) == least


def test_one_long_text_does_not_pad_the_short_ones() -> None:
    assert cheapest_split([8] * 31 + [256], 32) == [slice(0, 31), slice(31, 32)]
    assert cheapest_split([8] * 31 + [9], 32) == [slice(0, 32)]


@given(st.integers(1, 512))
def test_lengths_are_rounded_up_to_few(length: int) -> None:
    assert length <= round_length(length) < length + 64
    assert round_length(round_length(length)) == round_length(length)
    assert len({round_length(each) for each in range(1, 513)}) <= 18
