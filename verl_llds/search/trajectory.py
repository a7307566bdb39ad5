"""What a search episode leaves behind: tokens with their masks and spans, turn records, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from verl_llds.search.protocol import ActionKind


class EpisodeStatus(str, Enum):
    """How an episode ended."""

    ANSWERED = "answered"
    """The policy answered while it could still have searched."""
    ANSWERED_FORCED = "answered_forced"
    """The policy answered in the final turn, in which searching is not possible."""
    OUT_OF_TURNS = "out_of_turns"
    """The final turn held no answer."""
    OUT_OF_TOKENS = "out_of_tokens"
    """The response budget was used up before an answer."""
    RETRIEVAL_FAILED = "retrieval_failed"
    """The retriever gave no result; the trajectory carries no gradient."""
    ENGINE_ABORTED = "engine_aborted"
    """The engine returned no tokens; the trajectory carries no gradient."""

    @property
    def is_failure(self) -> bool:
        """Whether the environment failed, so that the trajectory says nothing about the policy."""
        return self in (EpisodeStatus.RETRIEVAL_FAILED, EpisodeStatus.ENGINE_ABORTED)


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What the engine sampled in one turn."""

    token_ids: Sequence[int]
    """The sampled ids, the stop string's included."""
    log_probs: Sequence[float] | None = None
    """Log-probability of each id under the sampling policy; None or empty if not asked for."""

    def __post_init__(self) -> None:
        """Refuse log-probabilities that would land on other tokens than their own."""
        if self.log_probs and len(self.log_probs) != len(self.token_ids):
            raise ValueError(
                f"the engine returned {len(self.token_ids)} tokens but {len(self.log_probs)} "
                "log-probabilities: its generate() must return one for each token, or None"
            )


@dataclass(frozen=True, kw_only=True)
class TurnRecord:
    """What happened in one turn."""

    kind: str
    """The parsed action: search, answer or invalid."""
    content: str
    """The query or answer."""
    num_tokens: int
    """Tokens the policy sampled."""
    documents: tuple[str, ...] = ()
    """Ids of the passages found; a truncated observation may show fewer."""
    search_s: float = 0.0
    """Seconds spent at the retriever."""


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
    policy_text: str = ""
    """The text the policy wrote, without observations: its turns, run together."""
    status: EpisodeStatus = EpisodeStatus.OUT_OF_TURNS
    """How the episode ended."""

    @property
    def num_searches(self) -> int:
        """Searches that were answered with passages."""
        return sum(turn.kind == ActionKind.SEARCH and bool(turn.documents) for turn in self.turns)

    @property
    def first_documents(self) -> tuple[str, ...]:
        """Ids of the passages that the first action found; empty if it did not search."""
        return self.turns[0].documents if self.turns else ()

    @property
    def answer(self) -> str | None:
        """The final answer, or None: what a score reads.

        It comes from the one turn that answered. Tags searched for in `policy_text` may pair up across turns.
        """
        last = self.turns[-1] if self.turns else None
        return last.content if last is not None and last.kind == ActionKind.ANSWER else None

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
