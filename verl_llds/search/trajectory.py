"""What a search episode leaves behind: tokens with their masks and spans, turn records, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from verl_llds.search.documents import Document
from verl_llds.search.protocol import ActionKind


class EpisodeStatus(str, Enum):
    """How an episode ended."""

    ANSWERED = "answered"
    """The policy answered while it could still have searched."""
    ANSWERED_FORCED = "answered_forced"
    """The policy answered in the final turn, in which searching is not possible."""
    OUT_OF_TURNS = "out_of_turns"
    """In the final turn the policy asked for another search."""
    INVALID_ACTIONS = "invalid_actions"
    """The turns ran out, and the last one was neither a search nor an answer."""
    OUT_OF_TOKENS = "out_of_tokens"
    """The response budget was used up before an answer."""
    RETRIEVAL_FAILED = "retrieval_failed"
    """The retriever gave no result."""
    TOOL_FAILED = "tool_failed"
    """Another tool could not do its work."""
    ENGINE_ABORTED = "engine_aborted"
    """The engine ended a turn early, or returned no tokens."""
    ERRORED = "errored"
    """Something raised that should not: engine, tokenizer or a tool with a fault."""

    @property
    def is_failure(self) -> bool:
        """Whether the environment failed, so that the trajectory says nothing about the policy."""
        return self in _FAILURES

    @property
    def is_answered(self) -> bool:
        """Whether the policy gave an answer."""
        return self in (EpisodeStatus.ANSWERED, EpisodeStatus.ANSWERED_FORCED)


_FAILURES = frozenset(
    {
        EpisodeStatus.RETRIEVAL_FAILED,
        EpisodeStatus.TOOL_FAILED,
        EpisodeStatus.ENGINE_ABORTED,
        EpisodeStatus.ERRORED,
    }
)


class TurnStatus(str, Enum):
    """What became of one turn."""

    RESULT = "result"
    """The tool answered."""
    ANSWER = "answer"
    """The policy gave its final answer."""
    INVALID = "invalid"
    """Neither a call nor an answer."""
    NOT_CALLED = "not_called"
    """A call in the final turn, which is not made."""
    FAILED = "failed"
    """The tool failed."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What the engine sampled in one turn."""

    token_ids: Sequence[int]
    """The sampled ids, the stop string's included."""
    log_probs: Sequence[float] | None = None
    """Log-probability of each id under the sampling policy; None or empty if not asked for."""
    is_aborted: bool = False
    """Whether the engine was made to stop before the turn's end."""

    def __post_init__(self) -> None:
        """Refuse log-probabilities that would land on other tokens than their own."""
        if self.log_probs and len(self.log_probs) != len(self.token_ids):
            raise ValueError(
                f"the engine returned {len(self.token_ids)} tokens but {len(self.log_probs)} "
                "log-probabilities: its generate() must return one for each token, or None"
            )

    def first(self, count: int) -> Generation:
        """Return the first ``count`` tokens of it."""
        log_probs = self.log_probs[:count] if self.log_probs else None
        return Generation(token_ids=self.token_ids[:count], log_probs=log_probs, is_aborted=self.is_aborted)


@dataclass(frozen=True, kw_only=True)
class TurnRecord:
    """What happened in one turn."""

    kind: ActionKind
    """The parsed action."""
    status: TurnStatus
    """What became of it."""
    text: str
    """What the policy wrote."""
    content: str
    """The query, another tool's argument, or the answer."""
    tool: str = ""
    """The tool called."""
    num_tokens: int
    """Tokens the policy sampled."""
    documents: tuple[Document, ...] = ()
    """The passages found; a truncated observation may show fewer."""
    attempts: int = 0
    """Requests made; 0 for a query whose answer was known from the same step."""
    latency_s: float = 0.0
    """Seconds the tool took."""
    num_observation_tokens: int = 0
    """Tokens of the environment's reply; 0 for one that the response budget had no room for."""
    is_truncated: bool = False
    """Whether part of the result did not fit into the reply."""

    def summary(self) -> dict[str, Any]:
        """Return plain values for logs and dumps: the text is in the response, passages are named by id."""
        return {
            "kind": self.kind.value,
            "status": self.status.value,
            "tool": self.tool,
            "content": self.content,
            "documents": [document.id for document in self.documents],
            "attempts": self.attempts,
            "latency_s": round(self.latency_s, 6),
            "num_tokens": self.num_tokens,
            "num_observation_tokens": self.num_observation_tokens,
            "is_truncated": self.is_truncated,
        }


@dataclass(kw_only=True)
class Trajectory:
    """A finished episode: parallel lists over the response, one entry per token."""

    prompt_ids: list[int]
    """The prompt."""
    response_ids: list[int] = field(default_factory=list)
    """Sampled and observed ids in order."""
    response_mask: list[int] = field(default_factory=list)
    """1 on sampled ids, 0 on observed ones."""
    log_probs: list[float] = field(default_factory=list)
    """Log-probability of sampled ids, 0 elsewhere."""
    action_ids: list[int] = field(default_factory=list)
    """Number of the action an id belongs to, from 1; 0 on observed ids."""
    answer_mask: list[int] = field(default_factory=list)
    """1 on the final answer with its tags, 0 elsewhere."""
    turns: list[TurnRecord] = field(default_factory=list)
    """One record per turn of the policy."""
    status: EpisodeStatus = EpisodeStatus.OUT_OF_TURNS
    """How the episode ended."""
    error: str = ""
    """What went wrong, if the environment failed."""

    @property
    def policy_text(self) -> str:
        """The text the policy wrote, without observations: its turns, run together."""
        return "".join(turn.text for turn in self.turns)

    @property
    def num_searches(self) -> int:
        """Searches that were answered with passages."""
        return sum(bool(turn.documents) for turn in self.turns)

    @property
    def first_documents(self) -> tuple[str, ...]:
        """Ids of the passages that the first action found; empty if it did not search."""
        return tuple(document.id for document in self.turns[0].documents) if self.turns else ()

    @property
    def answer(self) -> str | None:
        """The final answer, or None: what a score reads.

        It comes from the one turn that answered. Tags searched for in `policy_text` may pair up across turns.
        """
        last = self.turns[-1] if self.turns else None
        return last.content if last is not None and last.kind is ActionKind.ANSWER else None

    def append_sampled(self, generation: Generation) -> None:
        """Append one turn of the policy."""
        count = len(generation.token_ids)
        self.response_ids.extend(generation.token_ids)
        self.response_mask.extend([1] * count)
        self.log_probs.extend(generation.log_probs or [0.0] * count)
        self.action_ids.extend([len(self.turns) + 1] * count)
        self.answer_mask.extend([0] * count)

    def append_observed(self, token_ids: Sequence[int]) -> None:
        """Append ids the environment wrote."""
        count = len(token_ids)
        self.response_ids.extend(token_ids)
        self.response_mask.extend([0] * count)
        self.log_probs.extend([0.0] * count)
        self.action_ids.extend([0] * count)
        self.answer_mask.extend([0] * count)
