"""How far batches are padded where every new shape has a price: few lengths, few sizes."""

_BATCH_SIZES = (8, 16, 24, 32)


def round_length(length: int) -> int:
    """The padded length of a text of ``length`` tokens: in steps of 8, then 16, then 64."""
    step = 8 if length <= 64 else 16 if length <= 128 else 64
    return -(-length // step) * step


def round_batch(size: int) -> int:
    """The padded size of a batch of ``size`` texts: in steps of 8, up to 32."""
    return next((rounded for rounded in _BATCH_SIZES if rounded >= size), size)
