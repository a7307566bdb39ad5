"""A written trajectory as the rollout would have produced it: the same tokens, and whose they are.

Prompt, turns and observations are encoded one by one, because that is how an episode joins them; encoding the
whole text at once could merge across the joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase
from world import user_message

from verl_llds.search.documents import Document, format_documents
from verl_llds.search.search_r1 import format_observation


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """A question, the policy's turns and what each search returned."""

    question: str
    """The question."""
    turns: tuple[str, ...]
    """One string a turn; all but the last search."""
    observations: tuple[tuple[Document, ...], ...]
    """The documents after each search, so one fewer than turns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """Token ids and which of them the policy wrote."""

    ids: list[int]
    """Prompt, turns and observations in order."""
    policy: list[bool]
    """True on the tokens of a turn."""


def search_turn(thought: str, query: str) -> str:
    """Write a turn that searches."""
    return f"<think> {thought} </think> <search> {query} </search>"


def answer_turn(thought: str, answer: str) -> str:
    """Write a turn that answers."""
    return f"<think> {thought} </think> <answer> {answer} </answer>"


def prompt_text(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """Return the text a rollout of this question starts from."""
    return str(tokenizer.apply_chat_template(user_message(question), add_generation_prompt=True, tokenize=False))


def encode_trajectories(tokenizer: PreTrainedTokenizerBase, trajectories: Sequence[Trajectory]) -> list[Encoded]:
    """Encode many trajectories; every piece goes through the tokenizer on its own, in one batch."""
    pieces: list[tuple[int, str, bool]] = []
    for index, trajectory in enumerate(trajectories):
        pieces.append((index, prompt_text(tokenizer, trajectory.question), False))
        for number, turn in enumerate(trajectory.turns):
            pieces.append((index, turn, True))
            if number < len(trajectory.observations):
                body = format_documents(trajectory.observations[number])
                pieces.append((index, format_observation(body), False))
    encoded = [Encoded(ids=[], policy=[]) for _ in trajectories]
    batch = tokenizer([text for _, text, _ in pieces], add_special_tokens=False)["input_ids"]
    for (index, _, written), ids in zip(pieces, batch, strict=True):
        encoded[index].ids.extend(ids)
        encoded[index].policy.extend([written] * len(ids))
    return encoded
