"""One search episode on token ids, for any engine, protocol and tools.

The policy's turns and the environment's replies are appended to one list of ids. What was sampled is never decoded
and encoded again: text is decoded from a turn's ids only to parse it, and masks and spans are kept as ids are
appended. Training, evaluation and tests are callers of the one function here.

It is also the one boundary of failures: whatever engine or environment raise ends this episode with a status and is
recorded in its trajectory, so that it never costs the siblings and never passes for something the policy did.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from verl_llds.errors import RetrievalError, ToolError
from verl_llds.search.encodable import encodable
from verl_llds.search.environment import Environment
from verl_llds.search.protocol import ANSWER_OPEN, Action, ActionKind
from verl_llds.search.tokens import (
    Observation,
    Tokenizer,
    completing_position,
    encode_notice,
    encode_observation,
    num_ids_until,
    turn_text,
)
from verl_llds.search.tools import ToolResult, find_tool
from verl_llds.search.trajectory import EpisodeStatus, Generation, Trajectory, TurnRecord, TurnStatus

logger = logging.getLogger(__name__)

Generate = Callable[[list[int], int], Awaitable[Generation]]
"""``await generate(ids so far, token limit)`` samples one turn, within the limit, up to a closing tag."""


@dataclass(frozen=True, kw_only=True)
class _Turn:
    """One sampled turn."""

    generation: Generation
    text: str
    action: Action
    is_final: bool


async def run_episode(
    *,
    prompt_ids: Sequence[int],
    generate: Generate,
    environment: Environment,
    tokenizer: Tokenizer,
    max_response_tokens: int,
) -> Trajectory:
    """Play one episode and return its trajectory, whatever its end.

    Args:
        prompt_ids: ids of the rendered prompt.
        generate: samples one turn; ids past the first closing tag are dropped.
        environment: protocol, tools and limits.
        tokenizer: encodes replies and decodes turns.
        max_response_tokens: budget for sampled and observed ids together.
    """
    trajectory = Trajectory(prompt_ids=list(prompt_ids))
    try:
        await _play(trajectory, generate, environment, tokenizer, max_response_tokens)
    except ToolError as error:
        is_search = isinstance(error, RetrievalError)
        trajectory.status = EpisodeStatus.RETRIEVAL_FAILED if is_search else EpisodeStatus.TOOL_FAILED
        trajectory.error = encodable(str(error))
    except Exception as error:
        logger.exception("an episode ended with an error")
        trajectory.status = EpisodeStatus.ERRORED
        trajectory.error = encodable(f"{type(error).__name__}: {error}")
    return trajectory


async def _play(
    trajectory: Trajectory, generate: Generate, environment: Environment, tokenizer: Tokenizer, max_response_tokens: int
) -> None:
    settings = environment.settings
    for number in range(settings.max_turns + 1):
        budget = max_response_tokens - len(trajectory.response_ids)
        if budget < 1:
            trajectory.status = EpisodeStatus.OUT_OF_TOKENS
            return
        generation = await generate(
            trajectory.prompt_ids + trajectory.response_ids, min(budget, settings.max_action_tokens)
        )
        if generation.is_aborted or not generation.token_ids:
            trajectory.status = EpisodeStatus.ENGINE_ABORTED
            trajectory.error = f"the engine ended turn {number + 1} after {len(generation.token_ids)} tokens"
            return
        turn = _read(generation, environment, tokenizer, is_final=number == settings.max_turns)
        start = len(trajectory.response_ids)
        trajectory.append_sampled(turn.generation)
        if turn.action.kind is ActionKind.ANSWER:
            _mark_answer(trajectory, start, turn, tokenizer)
        if turn.action.kind is ActionKind.ANSWER or turn.is_final:
            _end(trajectory, turn, is_cut=len(trajectory.response_ids) >= max_response_tokens)
            return
        reply = await _reply(trajectory, turn, environment, tokenizer)
        if len(trajectory.response_ids) + len(reply) >= max_response_tokens:
            trajectory.turns[-1] = replace(trajectory.turns[-1], num_observation_tokens=0)
            trajectory.status = EpisodeStatus.OUT_OF_TOKENS
            return
        trajectory.append_observed(reply)


def _read(generation: Generation, environment: Environment, tokenizer: Tokenizer, *, is_final: bool) -> _Turn:
    """Parse a turn and drop what an engine sampled past its first closing tag."""
    text = turn_text(generation.token_ids, tokenizer)
    action = environment.protocol.parse(text)
    if action.end is not None:
        kept = num_ids_until(text[: action.end], generation.token_ids, tokenizer)
        if kept < len(generation.token_ids):
            generation = generation.first(kept)
            text = turn_text(generation.token_ids, tokenizer)
    return _Turn(generation=generation, text=text, action=action, is_final=is_final)


def _end(trajectory: Trajectory, turn: _Turn, *, is_cut: bool) -> None:
    """Record the last turn and how the episode ended: whether the response budget had room for more, too."""
    kind = turn.action.kind
    if kind is ActionKind.ANSWER:
        status = TurnStatus.ANSWER
        trajectory.status = EpisodeStatus.ANSWERED_FORCED if turn.is_final else EpisodeStatus.ANSWERED
    elif kind is ActionKind.CALL:
        status, trajectory.status = TurnStatus.NOT_CALLED, EpisodeStatus.OUT_OF_TURNS
    else:
        status = TurnStatus.INVALID
        trajectory.status = EpisodeStatus.OUT_OF_TOKENS if is_cut else EpisodeStatus.INVALID_ACTIONS
    trajectory.turns.append(_record(turn, status))


async def _reply(trajectory: Trajectory, turn: _Turn, environment: Environment, tokenizer: Tokenizer) -> Sequence[int]:
    """Do what the turn asks for, record it, and return the ids of the environment's reply."""
    if turn.action.kind is ActionKind.INVALID:
        notice = encode_notice(environment.protocol.notice(turn.text), tokenizer)
        trajectory.turns.append(_record(turn, TurnStatus.INVALID, observation=Observation(notice, False)))
        return notice
    tool = find_tool(environment.tools, turn.action.tool)
    assert tool is not None, "a protocol parses calls of known tools only"
    started = time.perf_counter()
    try:
        result = await tool(turn.action.content)
        if not isinstance(result, ToolResult):
            raise TypeError(f"{tool.name} returned {result!r}; a tool returns verl_llds.search.tools.ToolResult")
    except Exception as error:
        failed = ToolResult(text="", attempts=getattr(error, "attempts", 1))
        trajectory.turns.append(_record(turn, TurnStatus.FAILED, failed, time.perf_counter() - started))
        raise
    latency_s = time.perf_counter() - started
    observation = encode_observation(
        result.text,
        environment.protocol.result_frame(turn.text),
        tokenizer,
        environment.settings.max_observation_tokens,
        keep_tail=environment.settings.keep_closing_tag,
    )
    trajectory.turns.append(_record(turn, TurnStatus.RESULT, result, latency_s, observation))
    return observation.ids


def _mark_answer(trajectory: Trajectory, start: int, turn: _Turn, tokenizer: Tokenizer) -> None:
    """Set the answer mask on the ids that hold the answer and its tags.

    An id that holds the span's first or last character belongs to it.
    """
    assert turn.action.end is not None, "an answer has a closing tag"
    ids = turn.generation.token_ids
    opening = turn.text.index(ANSWER_OPEN)
    first = completing_position(turn.text[: opening + 1], ids, tokenizer)
    last = completing_position(turn.text[: turn.action.end], ids, tokenizer)
    for position in range(start + first, start + last + 1):
        trajectory.answer_mask[position] = 1


def _record(
    turn: _Turn,
    status: TurnStatus,
    result: ToolResult | None = None,
    latency_s: float = 0.0,
    observation: Observation | None = None,
) -> TurnRecord:
    return TurnRecord(
        kind=turn.action.kind,
        status=status,
        text=turn.text,
        content=turn.action.content,
        tool=turn.action.tool,
        num_tokens=len(turn.generation.token_ids),
        documents=result.documents if result else (),
        attempts=result.attempts if result else 0,
        latency_s=latency_s,
        num_observation_tokens=len(observation.ids) if observation else 0,
        is_truncated=observation.is_truncated if observation else False,
    )
