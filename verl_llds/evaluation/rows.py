"""One line of an evaluation's file: a trajectory with its score, as plain values.

The keys that verl's dumps of validation have (``input``, ``output``, ``gts``, ``score``, ``acc``, ``turns`` ...) are
called and mean the same here, so that what reads those dumps reads these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from verl_llds.evaluation.questions import Question
from verl_llds.reward.score import Score
from verl_llds.search.facts import trajectory_facts
from verl_llds.search.trajectory import Trajectory

POLICY, OBSERVATION, ANSWER = "policy", "observation", "answer"
"""Kinds of a response's segments."""

Segment = tuple[str, Sequence[int]]
"""A kind and its ids."""


def row_key(question_id: str, sample: int) -> str:
    """Return the name of one episode."""
    return f"{question_id}#{sample}"


def trajectory_row(
    question: Question, sample: int, trajectory: Trajectory, score: Score, tokenizer: Any, seconds: float
) -> dict[str, Any]:
    """Return a trajectory's line."""
    pieces = [(kind, tokenizer.decode(ids, skip_special_tokens=False)) for kind, ids in segments(trajectory)]
    return {
        "kind": "trajectory",
        "uid": row_key(question.id, sample),
        "question": question.id,
        "sample": sample,
        "number": question.number,
        "data_source": question.source,
        "input": tokenizer.decode(trajectory.prompt_ids, skip_special_tokens=False),
        "output": "".join(text for _, text in pieces),
        "spans": _spans(pieces),
        "gts": list(question.targets),
        "answer": trajectory.answer,
        "score": score.reward,
        "acc": score.answer,
        "em": score.em,
        "f1": score.f1,
        "sub_em": score.sub_em,
        **trajectory_facts(trajectory),
        "log_prob": _log_prob(trajectory),
        "seconds": round(seconds, 3),
    }


def segments(trajectory: Trajectory) -> Iterator[Segment]:
    """Yield the runs of a response's ids: what the policy wrote, its answer, what it was shown."""
    kinds = [
        OBSERVATION if not sampled else ANSWER if answer else POLICY
        for sampled, answer in zip(trajectory.response_mask, trajectory.answer_mask, strict=True)
    ]
    start = 0
    for kind, run in groupby(kinds):
        end = start + len(list(run))
        yield kind, trajectory.response_ids[start:end]
        start = end


def _spans(pieces: Sequence[tuple[str, str]]) -> list[list[Any]]:
    """Return kind, first character and end of each piece in the output's text."""
    spans: list[list[Any]] = []
    end = 0
    for kind, text in pieces:
        spans.append([kind, end, end + len(text)])
        end += len(text)
    return spans


def _log_prob(trajectory: Trajectory) -> float | None:
    """Return the mean log-probability of the policy's tokens; None where the engine gave none."""
    sampled = [value for value, mask in zip(trajectory.log_probs, trajectory.response_mask, strict=True) if mask]
    return sum(sampled) / len(sampled) if any(sampled) else None
