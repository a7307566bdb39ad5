"""The numbers of an evaluation, out of its lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from verl_llds.evaluation.bootstrap import Averages, average
from verl_llds.reward.sources import SEVEN_SETS
from verl_llds.search.failures import has_failed
from verl_llds.search.trajectory import EpisodeStatus

METRICS = ("em", "f1", "sub_em")
"""Of the answer, in [0, 1]."""

SEARCH_R1_BATCH = 256
"""Search-R1 evaluates in batches of this size and drops the last, incomplete one."""

_MEANS: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "valid_searches": lambda row: row["num_searches"],
    "turns": lambda row: len(row["turns"]),
    "answered": lambda row: EpisodeStatus(row["status"]).is_answered,
    "failed": has_failed,
    "policy_tokens": lambda row: row["num_policy"],
    "observation_tokens": lambda row: row["num_observation"],
    "seconds": lambda row: row["seconds"],
}

_SEVEN = [one.name for one in SEVEN_SETS]


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """All numbers of an evaluation."""

    sources: tuple[str, ...]
    """The question sets: the papers' seven in their order, then others by name."""
    num_questions: tuple[int, ...]
    """Questions of each set."""
    num_samples: int
    """Episodes for each question."""
    metrics: Mapping[str, Averages]
    """By metric: means and 95% intervals for each set, macro and micro."""
    means: Mapping[str, Sequence[float]]
    """By quantity: the mean per episode for each set, and then over all episodes."""
    statuses: Sequence[Mapping[str, int]]
    """Episodes by status for each set, and then all of them."""
    num_dropped: int = 0
    """Questions left out as Search-R1 leaves them out."""

    def facts(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def summarize(rows: Iterable[Mapping[str, Any]], *, seed: int, drop_last: int | None = None) -> Summary:
    """Return the numbers of an evaluation.

    Args:
        rows: the lines, one for each episode.
        seed: of the bootstrap.
        drop_last: a batch size: the questions after the last full batch, in the order of the files, are left out.
    """
    kept, num_dropped = _without_last(list(rows), drop_last)
    assert kept, "an evaluation has episodes"
    sources = ordered_sources({row["data_source"] for row in kept})
    by_set = [[row for row in kept if row["data_source"] == source] for source in sources]
    groups = [*by_set, kept]
    return Summary(
        sources=tuple(sources),
        num_questions=tuple(len({row["question"] for row in rows}) for rows in by_set),
        num_samples=1 + max(row["sample"] for row in kept),
        metrics={
            name: average([list(question_means(rows, name).values()) for rows in by_set], seed=seed) for name in METRICS
        },
        means={name: [fmean(map(float, map(value, rows))) for rows in groups] for name, value in _MEANS.items()},
        statuses=[dict(Counter(row["status"] for row in rows)) for rows in groups],
        num_dropped=num_dropped,
    )


def question_means(rows: Iterable[Mapping[str, Any]], metric: str) -> dict[str, float]:
    """Return the mean over samples of each question, in the order of the questions."""
    values: dict[str, list[float]] = {}
    for row in sorted(rows, key=lambda row: int(row["number"])):
        values.setdefault(row["question"], []).append(float(row[metric]))
    return {question: fmean(found) for question, found in values.items()}


def ordered_sources(sources: Iterable[str]) -> list[str]:
    """Return set names: the papers' seven in their order, then others by name."""
    return sorted(sources, key=lambda name: (_SEVEN.index(name) if name in _SEVEN else len(_SEVEN), name))


def _without_last(rows: list[Mapping[str, Any]], batch: int | None) -> tuple[list[Mapping[str, Any]], int]:
    if batch is None:
        return rows, 0
    numbers = sorted({int(row["number"]) for row in rows})
    num_dropped = len(numbers) % batch
    last = set(numbers[len(numbers) - num_dropped :])
    return [row for row in rows if row["number"] not in last], num_dropped
