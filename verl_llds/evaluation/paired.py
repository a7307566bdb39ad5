"""Whether two evaluations of the same questions differ: paired bootstrap and McNemar's exact test.

Both look at questions answered under both; what differs between questions cancels. The bootstrap works on any value
(EM, F1); McNemar's test asks of 0/1 values whether the questions only one of them got right are split evenly, which
under equal models is a fair coin for each of them (Quinlan McNemar, Psychometrika 12, 1947, with the exact binomial).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verl_llds.evaluation.bootstrap import NUM_RESAMPLES, Averages, Estimate, average, resampled_means


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """B minus A on one set of questions."""

    estimate: Estimate
    """Mean difference and its 95% interval."""
    p_value: float
    """Two-sided, of the bootstrap: twice the smaller share of resamples at or beyond 0, at most 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class McNemar:
    """The exact test on 0/1 values."""

    only_a: int
    """Questions that A alone got right."""
    only_b: int
    """Questions that B alone got right."""
    p_value: float
    """Two-sided."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Differences:
    """B minus A."""

    sets: tuple[Difference, ...]
    """For each set, in the order given."""
    macro: Difference
    """Of the mean over sets."""
    micro: Difference
    """Of the mean over all questions."""


def paired_bootstrap(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> Differences:
    """Compare the values of the same questions, set by set.

    Args:
        a: for each set the value of each question in A.
        b: the same questions in B, in the same order.
        seed: of the draws.
        num_resamples: draws; with 2000, no p-value is below 0.001.
    """
    gaps = [np.subtract(right, left).astype(np.float64) for left, right in zip(a, b, strict=True)]
    averages: Averages = average([gap.tolist() for gap in gaps], seed=seed, num_resamples=num_resamples)
    drawn = resampled_means(gaps, seed=seed, num_resamples=num_resamples)
    sizes = np.array([gap.size for gap in gaps], dtype=np.float64)
    p_values = [_p_value(row) for row in drawn]
    return Differences(
        sets=tuple(Difference(estimate=one, p_value=p) for one, p in zip(averages.sets, p_values, strict=True)),
        macro=Difference(estimate=averages.macro, p_value=_p_value(drawn.mean(axis=0))),
        micro=Difference(estimate=averages.micro, p_value=_p_value(sizes @ drawn / sizes.sum())),
    )


def mcnemar(a: Sequence[float], b: Sequence[float]) -> McNemar:
    """Return McNemar's exact test of paired 0/1 values.

    Args:
        a: 1 where A is right, else 0.
        b: the same questions in B.
    """
    pairs = list(zip(a, b, strict=True))
    assert all(value in (0, 1) for pair in pairs for value in pair), "McNemar's test is of 0/1 values"
    only_a = sum(left > right for left, right in pairs)
    only_b = sum(right > left for left, right in pairs)
    return McNemar(only_a=only_a, only_b=only_b, p_value=sign_test(only_a, only_b))


def sign_test(first: int, second: int) -> float:
    """Return the two-sided probability of a split at least this uneven among fair coins: exact, in [0, 1]."""
    total, fewer = first + second, min(first, second)
    # Whole numbers of any size: no rounding before the one division.
    term = tail = 1
    for heads in range(fewer):
        term = term * (total - heads) // (heads + 1)
        tail += term
    return min(1.0, float(2 * tail / 2**total))


def _p_value(drawn: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    # One more on both sides: the sample itself is a resample, so the probability is never 0.
    below, above = int((drawn <= 0).sum()), int((drawn >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(drawn) + 1))
