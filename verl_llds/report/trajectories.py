"""One trajectory as the viewer shows it: turn by turn, policy and observation apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby
from typing import Any

_LOG_PROB_DIGITS = 4


class Split(str, Enum):
    """Where a trajectory was sampled."""

    TRAINING = "training"
    """In a training step."""
    EVALUATION = "evaluation"
    """In an evaluation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """The policy's tokens of one turn: parallel lists."""

    texts: Sequence[str]
    """The pieces; a character split over several tokens belongs to the last of them."""
    old: Sequence[float | None]
    """Log-probabilities before the update, in nats."""
    new: Sequence[float | None] | None
    """The same after it; None where it was not measured."""
    gate: Sequence[bool] | None
    """Whether the penalty is open; None as ``new``."""
    penalty: Sequence[float] | None
    """What the token pays, in nats, before the coefficient; None as ``new``."""
    answer: Sequence[bool]
    """Whether it belongs to the final answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What the policy wrote, and what came back."""

    text: str
    """The policy's text."""
    tokens: Tokens | None = None
    """The same by token, where it was recorded."""
    observation: str = ""
    """The environment's reply."""
    kind: str = ""
    """A member of `verl_llds.search.protocol.ActionKind`, or empty."""
    status: str = ""
    """A member of `verl_llds.search.trajectory.TurnStatus`, or empty."""
    tool: str = ""
    """The tool called."""
    content: str = ""
    """The query or the answer."""
    documents: Sequence[str] = ()
    """Ids of the passages found."""
    attempts: int | None = None
    """Requests made."""
    latency_s: float | None = None
    """Seconds the tool took."""
    is_truncated: bool = False
    """Whether part of the result did not fit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """A finished rollout. All text is of models and passages: nobody has vouched for it."""

    split: Split
    """Where it comes from."""
    step: int
    """Training step."""
    key: str
    """Its name, unique in the step."""
    group: str
    """Siblings, sampled for the same question, share it."""
    source: str
    """Data set; empty where it was not recorded."""
    question: str
    """The question."""
    gold_answers: Sequence[str] = ()
    """Answers that count as right."""
    answer: str | None = None
    """The final answer."""
    reward: float
    """Its reward."""
    correct: bool
    """Whether the reward is that of a correct trajectory."""
    status: str
    """A member of `verl_llds.search.trajectory.EpisodeStatus`; empty for other agent loops."""
    error: str = ""
    """What failed, if the environment did."""
    num_searches: int | None = None
    """Searches that found passages."""
    advantage: float | None = None
    """Of its policy tokens."""
    preserved: bool | None = None
    """Whether LLDS protects it."""
    prompt: str = ""
    """What the policy was given."""
    turns: Sequence[Turn] = field(default_factory=tuple)
    """In order."""

    @property
    def response(self) -> str:
        """Everything after the prompt."""
        return "".join(turn.text + turn.observation for turn in self.turns)

    @property
    def has_tokens(self) -> bool:
        """Whether log-probabilities were recorded."""
        return any(turn.tokens is not None for turn in self.turns)


def from_token_row(row: Mapping[str, Any]) -> Trajectory:
    """Build a trajectory from a row of `verl_llds.trajectories.reader.read_step`."""
    turns = [_recorded_turn(row, turn) for turn in row["turns"] or ()]
    return Trajectory(
        split=Split.TRAINING,
        step=row["step"],
        key=row["key"],
        group=row["uid"],
        source=row["data_source"] or "",
        question=row["question"] or "",
        gold_answers=row["gold_answers"] or (),
        answer=row["answer"],
        reward=row["score"],
        correct=row["correct"],
        status=row["status"] or "",
        error=row["error"] or "",
        num_searches=row["num_searches"],
        advantage=row["advantage"],
        preserved=row["preserved"],
        prompt=row["prompt"] or "",
        turns=turns or _masked_turns(row),
    )


def _recorded_turn(row: Mapping[str, Any], turn: Mapping[str, Any]) -> Turn:
    first, middle = turn["start"], turn["start"] + turn["num_tokens"]
    return Turn(
        text="".join(row["tokens"][first:middle]),
        tokens=_tokens(row, first, middle),
        observation="".join(row["tokens"][middle : middle + turn["num_observation_tokens"]]),
        kind=turn["kind"],
        status=turn["status"],
        tool=turn["tool"],
        content=turn["content"],
        documents=turn["documents"] or (),
        attempts=turn["attempts"],
        latency_s=round(turn["latency_s"], 4),
        is_truncated=turn["is_truncated"],
    )


def _masked_turns(row: Mapping[str, Any]) -> list[Turn]:
    """Return the turns of another agent loop: what its mask says the policy wrote, and what followed."""
    turns: list[Turn] = []
    place = 0
    for is_policy, run in groupby(row["response_mask"]):
        end = place + len(list(run))
        text = "".join(row["tokens"][place:end])
        if is_policy:
            turns.append(Turn(text=text, tokens=_tokens(row, place, end)))
        elif turns:
            turns[-1] = Turn(text=turns[-1].text, tokens=turns[-1].tokens, observation=text)
        else:
            turns.append(Turn(text="", observation=text))
        place = end
    return turns


def _tokens(row: Mapping[str, Any], first: int, end: int) -> Tokens:
    def rounded(name: str) -> list[Any] | None:
        values = row[name]
        if values is None:
            return None
        return [None if value is None else round(value, _LOG_PROB_DIGITS) for value in values[first:end]]

    return Tokens(
        texts=row["tokens"][first:end],
        old=rounded("old_log_probs") or [None] * (end - first),
        new=rounded("new_log_probs"),
        gate=None if row["gate"] is None else row["gate"][first:end],
        penalty=rounded("penalty"),
        answer=row["answer_mask"][first:end],
    )
