from hypothesis import given
from hypothesis import strategies as st

from retriever_server.padding import round_batch, round_length


@given(st.integers(1, 512))
def test_lengths_are_rounded_up_to_few(length: int) -> None:
    assert length <= round_length(length) < length + 64
    assert round_length(round_length(length)) == round_length(length)
    assert len({round_length(each) for each in range(1, 513)}) <= 18


def test_batches_are_rounded_up_to_few() -> None:
    assert [round_batch(size) for size in (1, 8, 9, 24, 25, 32)] == [8, 8, 16, 24, 32, 32]
    assert round_batch(33) == 33
