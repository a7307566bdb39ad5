"""Rows by score: one file a kind of index, none of which knows of texts or encoders.

Every kind gives at most ``k`` rows a query, best first, rows of equal score in rising order.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Found(NamedTuple):
    """What a search of ``n`` queries found, ``k`` rows each."""

    scores: NDArray[np.float32]
    """``[n, k]``, falling along a row."""

    rows: NDArray[np.int64]
    """``[n, k]``, rising among equal scores."""
