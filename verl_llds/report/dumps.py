"""Trajectories from verl's own dumps of rollouts and evaluations: text without tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_llds.errors import RunFolderError
from verl_llds.report.division import divide
from verl_llds.report.metrics_log import parse_json
from verl_llds.report.trajectories import Split, Trajectory, Turn

_QUESTION = re.compile(r".*Question:\s*([^\n]+)", re.DOTALL)
_MAX_QUESTION = 300


def read_dump(path: Path, split: Split, correct_reward: float) -> Iterator[Trajectory]:
    """Yield the trajectories of one file of ``trainer.rollout_data_dir`` or ``trainer.validation_data_dir``.

    Args:
        path: the file.
        split: what it is from.
        correct_reward: reward from which a trajectory counts as correct.

    Raises:
        RunFolderError: the file cannot be read, or a line other than the last, which may be half written, is no
            record of a trajectory.
    """
    broken: tuple[int, str] | None = None
    try:
        # A lone surrogate is no UTF-8, but a model can write one.
        with path.open(encoding="utf-8", errors="surrogateescape") as lines:
            for number, line in enumerate(lines, start=1):
                if broken is not None:
                    raise RunFolderError(
                        f"{path}, line {broken[0]} is no trajectory of verl's ({broken[1]}): repair or remove the line"
                    )
                try:
                    yield from_dump_row(parse_json(line), split, correct_reward)
                except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
                    broken = (number, f"{type(error).__name__}: {error}"[:120])
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror}; is it a dump of verl's?") from error


def from_dump_row(row: Mapping[str, Any], split: Split, correct_reward: float) -> Trajectory:
    """Build a trajectory from one record."""
    key = str(row.get("uid") or "")
    reward = float(row["score"])
    return Trajectory(
        split=split,
        step=int(row["step"]),
        key=key,
        group=key.rsplit("_", 2)[0],
        source=str(row.get("data_source") or ""),
        question=_question(row["input"]),
        gold_answers=_gold(row.get("gts")),
        answer=_answer(row),
        reward=reward,
        correct=reward >= correct_reward,
        status=str(row.get("status") or ""),
        error=str(row.get("error") or ""),
        num_searches=row.get("num_searches"),
        prompt=row["input"],
        turns=_turns(row["output"], row.get("turns") or ()),
    )


def _turns(response: str, records: Sequence[Mapping[str, Any]]) -> list[Turn]:
    pairs = divide(response, records)
    known = [*records[: len(pairs)], *({} for _ in pairs[len(records) :])]
    return [_turn(text, observation, record) for (text, observation), record in zip(pairs, known, strict=True)]


def _turn(text: str, observation: str, record: Mapping[str, Any]) -> Turn:
    return Turn(
        text=text,
        observation=observation,
        kind=record.get("kind", ""),
        status=record.get("status", ""),
        tool=record.get("tool", ""),
        content=record.get("content", ""),
        documents=record.get("documents", ()),
        attempts=record.get("attempts"),
        latency_s=record.get("latency_s"),
        is_truncated=record.get("is_truncated", False),
    )


def _question(prompt: str) -> str:
    found = _QUESTION.match(prompt)
    return (found.group(1) if found else " ".join(prompt.split()))[:_MAX_QUESTION].strip()


def _gold(truth: Any) -> list[str]:
    target = truth.get("target", truth) if isinstance(truth, Mapping) else truth
    if target is None:
        return []
    return [str(one) for one in target] if isinstance(target, list) else [str(target)]


def _answer(row: Mapping[str, Any]) -> str | None:
    turns = row.get("turns") or ()
    last = turns[-1] if turns else {}
    return str(last["content"]) if last.get("kind") == "answer" else None
