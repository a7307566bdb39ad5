"""Bootstrap intervals of means over questions, for one question set and for averages over several.

The percentile bootstrap of Efron: questions of a set are drawn again with replacement, as many as there are, and the
2.5th and 97.5th percentile of the means so obtained are the interval. With several sets each is drawn by itself, so
that the averages keep every set's size. A question with several samples counts by their mean: questions are what
varies between two test sets, samples of one question are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
"""Enough for two digits of the ends of a 95% interval."""

CONFIDENCE = 0.95

_CHUNK_CELLS = 4_000_000
"""Draws held at once, which bounds the memory to some dozens of megabytes."""

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean and its interval."""

    mean: float
    """The mean over questions, or over the means of sets."""
    low: float
    """Lower end of the 95% interval."""
    high: float
    """Upper end of the 95% interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Averages:
    """The estimates of one quantity."""

    sets: tuple[Estimate, ...]
    """One for each set, in the order given."""
    macro: Estimate
    """Of the mean over sets, each counted once, as the papers' tables have it."""
    micro: Estimate
    """Of the mean over all questions."""


def average(values: Sequence[Sequence[float]], *, seed: int, num_resamples: int = NUM_RESAMPLES) -> Averages:
    """Return means with intervals.

    Args:
        values: for each set the value of each question; no set is empty.
        seed: of the draws; the same values and seed give the same ends.
        num_resamples: draws.
    """
    arrays = [np.asarray(one, dtype=np.float64) for one in values]
    assert arrays, "there is a set"
    assert all(one.size for one in arrays), "every set has questions"
    sizes = np.array([one.size for one in arrays], dtype=np.float64)
    means = np.array([one.mean() for one in arrays])
    drawn = resampled_means(arrays, seed=seed, num_resamples=num_resamples)
    return Averages(
        sets=tuple(_estimate(mean, row) for mean, row in zip(means, drawn, strict=True)),
        macro=_estimate(means.mean(), drawn.mean(axis=0)),
        micro=_estimate(means @ sizes / sizes.sum(), sizes @ drawn / sizes.sum()),
    )


def resampled_means(arrays: Sequence[Array], *, seed: int, num_resamples: int) -> Array:
    """Return the means of sets drawn again with replacement, [sets, resamples]."""
    rng = np.random.default_rng(seed)
    return np.stack([_resample(one, rng, num_resamples) for one in arrays])


def _resample(values: Array, rng: np.random.Generator, num_resamples: int) -> Array:
    per_chunk = max(1, _CHUNK_CELLS // values.size)
    parts = []
    for start in range(0, num_resamples, per_chunk):
        count = min(per_chunk, num_resamples - start)
        parts.append(values[rng.integers(values.size, size=(count, values.size))].mean(axis=1))
    return np.concatenate(parts)


def _estimate(mean: float, drawn: Array) -> Estimate:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(mean=float(mean), low=float(low), high=float(high))
