"""One search episode on token ids, for any engine.

The policy's turns and the environment's observations are appended to one list of ids. What was sampled is
never decoded and encoded again: text is decoded from a turn's ids only to parse it, and masks and spans are
kept as ids are appended. Training, evaluation and tests are callers of the one function here.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from verl_llds.errors import RetrievalError
from verl_llds.search.client import Searcher
from verl_llds.search.protocol import (
    INFORMATION_CLOSE,
    INFORMATION_OPEN,
    INVALID_ACTION_MESSAGE,
    Action,
    ActionKind,
    format_documents,
    format_observation,
    parse_action,
)
from verl_llds.search.settings import SearchConfig
from verl_llds.search.trajectory import EpisodeStatus, Generation, Trajectory, TurnRecord


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that an episode uses."""

    @property
    def all_special_tokens(self) -> Sequence[str]:
        """Texts that encode to control ids, such as the end of a turn."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of a text."""
        ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Return the text of ids."""
        ...


Generate = Callable[[list[int], int], Awaitable[Generation]]
"""``await generate(ids so far, token limit)`` samples one turn, within the limit, up to a closing tag."""


async def run_episode(
    *,
    prompt_ids: Sequence[int],
    generate: Generate,
    searcher: Searcher,
    tokenizer: Tokenizer,
    settings: SearchConfig,
    max_response_tokens: int,
) -> Trajectory:
    """Play one episode and return its trajectory, whatever its end.

    Args:
        prompt_ids: ids of the rendered prompt.
        generate: samples one turn.
        searcher: answers queries; its `RetrievalError` ends the episode, it does not leave it.
        tokenizer: encodes observations and decodes turns.
        settings: turns, lengths and passages per query.
        max_response_tokens: budget for sampled and observed ids together.
    """
    trajectory = Trajectory(prompt_ids=list(prompt_ids))
    for turn in range(settings.max_turns + 1):
        budget = max_response_tokens - len(trajectory.response_ids)
        if budget < 1:
            trajectory.status = EpisodeStatus.OUT_OF_TOKENS
            break
        generation = await generate(
            trajectory.prompt_ids + trajectory.response_ids, min(budget, settings.max_action_tokens)
        )
        if not generation.token_ids:
            trajectory.status = EpisodeStatus.ENGINE_ABORTED
            break
        start = len(trajectory.response_ids)
        trajectory.append_sampled(generation)
        text = tokenizer.decode(generation.token_ids, skip_special_tokens=True)
        trajectory.policy_text += text
        action = parse_action(text)
        is_final = turn == settings.max_turns
        if action.kind is ActionKind.ANSWER:
            _mark_answer(trajectory, start, generation.token_ids, text, tokenizer)
            trajectory.turns.append(_record(action, generation))
            trajectory.status = EpisodeStatus.ANSWERED_FORCED if is_final else EpisodeStatus.ANSWERED
            break
        if is_final:
            trajectory.turns.append(_record(action, generation))
            trajectory.status = EpisodeStatus.OUT_OF_TURNS
            break
        observed = await _observe(trajectory, action, generation, searcher, tokenizer, settings)
        if observed is None:
            trajectory.status = EpisodeStatus.RETRIEVAL_FAILED
            break
        if len(trajectory.response_ids) + len(observed) >= max_response_tokens:
            trajectory.status = EpisodeStatus.OUT_OF_TOKENS
            break
        trajectory.append_observed(observed)
    return trajectory


async def _observe(
    trajectory: Trajectory,
    action: Action,
    generation: Generation,
    searcher: Searcher,
    tokenizer: Tokenizer,
    settings: SearchConfig,
) -> list[int] | None:
    """Record the turn and return the ids of the environment's reply, or None if the search failed."""
    if action.kind is ActionKind.INVALID:
        trajectory.turns.append(_record(action, generation))
        return tokenizer.encode(INVALID_ACTION_MESSAGE, add_special_tokens=False)
    started = time.perf_counter()
    try:
        documents = await searcher.search(action.content)
    except RetrievalError:
        # Recorded, not raised: one lost search must not cost its siblings. The trainer counts these and
        # stops the run when there are too many.
        trajectory.turns.append(_record(action, generation, search_s=time.perf_counter() - started))
        return None
    trajectory.turns.append(
        _record(
            action,
            generation,
            documents=tuple(document.id for document in documents),
            search_s=time.perf_counter() - started,
        )
    )
    return _encode_observation(format_documents(documents), tokenizer, settings.max_observation_tokens)


def _encode_observation(body: str, tokenizer: Tokenizer, limit: int) -> list[int]:
    """Return the ids of a wrapped observation, cut to ``limit`` with the closing tag kept."""
    for token in tokenizer.all_special_tokens:
        # Left in, a passage could end the turn or open another speaker's.
        body = body.replace(token, " ")
    ids = tokenizer.encode(format_observation(body), add_special_tokens=False)
    if len(ids) <= limit:
        return ids
    # Encoded apart, so that the cut cannot leave a piece of one closing tag before the other.
    opened = tokenizer.encode(INFORMATION_OPEN + body.strip(), add_special_tokens=False)
    closing = tokenizer.encode(INFORMATION_CLOSE, add_special_tokens=False)
    return opened[: limit - len(closing)] + closing


def _mark_answer(trajectory: Trajectory, start: int, token_ids: Sequence[int], text: str, tokenizer: Tokenizer) -> None:
    """Set the answer mask on the ids that hold the answer and its tags.

    The turn's own ids are decoded prefix by prefix to find where a character falls, so the span is exact for
    any tokenisation; an id that holds the span's first or last character belongs to it.
    """
    opening = text.index("<answer>")
    closing = text.index("</answer>", opening) + len("</answer>")
    first = _completing_id(text[: opening + 1], token_ids, tokenizer)
    last = _completing_id(text[:closing], token_ids, tokenizer)
    for position in range(start + first, start + last + 1):
        trajectory.answer_mask[position] = 1


def _completing_id(text: str, token_ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """Return the position of the id whose decoding completes ``text``, a beginning of the turn's text."""
    low, high = 0, len(token_ids) - 1
    while low < high:
        middle = (low + high) // 2
        # Compared as text: half a character may decode to more characters than the whole one.
        if tokenizer.decode(token_ids[: middle + 1], skip_special_tokens=True).startswith(text):
            high = middle
        else:
            low = middle + 1
    return low


def _record(
    action: Action, generation: Generation, *, documents: tuple[str, ...] = (), search_s: float = 0.0
) -> TurnRecord:
    return TurnRecord(
        kind=action.kind.value,
        content=action.content,
        num_tokens=len(generation.token_ids),
        documents=documents,
        search_s=search_s,
    )
