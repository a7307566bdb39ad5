"""A step's trajectories as a table: from the columns of verl's batch to those of the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from verl_llds.loss.displacement import action_ids_from_mask
from verl_llds.search.protocol import ActionKind
from verl_llds.settings import LLDSConfig
from verl_llds.trajectories.dataset import gold_answers_of, question_of
from verl_llds.trajectories.penalties import token_penalties
from verl_llds.trajectories.schema import FORMAT, INFO_KEY, PER_TOKEN, SCHEMA
from verl_llds.trajectories.texts import token_texts


@dataclass(frozen=True, kw_only=True)
class StepBatch:
    """The kept trajectories of one step as verl's queue holds them."""

    step: int
    """The training step."""
    num_trajectories: int
    """How many the step had, kept or not."""
    keys: Sequence[str]
    """One for each row."""
    columns: Mapping[str, Sequence[Any]]
    """By verl's names, one value a row: 1-D tensors ``[T]`` over the response, or plain values. ``log_probs`` is
    there if they were measured after the update."""
    facts: Mapping[str, Mapping[str, Any]]
    """Of search episodes, by key, see `verl_llds.search.agent_loop.trajectory_facts`."""
    valid_searches: float | None
    """Mean number of valid searches of the step's trajectories, or None."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What is the same in all steps of a run."""

    tokenizer: Any
    """Of the policy."""
    llds: LLDSConfig
    """The penalty's settings; of a run without it, the paper's."""
    is_applied: bool
    """Whether the penalty is part of the loss."""
    correct_reward: float
    """Reward from which a trajectory is correct."""


def step_info(batch: StepBatch, context: Context) -> dict[str, Any]:
    """Return what a file says of its step.

    * ``format``: version of the columns;
    * ``step``;
    * ``num_trajectories``: of the step, kept or not;
    * ``llds``: the fields of `LLDSConfig`;
    * ``is_applied``: whether the penalty was part of the loss. If not, gate and penalty are what they would have been;
    * ``correct_reward``: reward from which a trajectory is correct. Files of earlier versions lack it.
    """
    return {
        "format": FORMAT,
        "step": batch.step,
        "num_trajectories": batch.num_trajectories,
        "llds": asdict(context.llds),
        "is_applied": context.is_applied,
        "correct_reward": context.correct_reward,
    }


def step_table(batch: StepBatch, context: Context) -> pa.Table:
    """Return the table of a step, see `verl_llds.trajectories.schema.SCHEMA`."""
    masks = batch.columns["response_mask"]
    actions = batch.columns.get("action_ids") or [action_ids_from_mask(mask[None])[0] for mask in masks]
    # Rows of another agent loop, and those that verl adds to fill a batch, may carry numbers of another length.
    actions = [_fit(row, len(mask)) for row, mask in zip(actions, masks, strict=True)]
    answers = [_fit(row, len(mask)) for row, mask in zip(_answer_masks(batch), masks, strict=True)]
    scores = torch.stack([row.double().sum() for row in batch.columns["rm_scores"]])
    advantages = [_advantage(row, mask) for row, mask in zip(batch.columns["advantages"], masks, strict=True)]
    columns: dict[str, Any] = {
        "step": [batch.step] * len(masks),
        "key": list(batch.keys),
        "uid": [str(uid) for uid in batch.columns["uid"]],
        "score": scores.tolist(),
        "correct": (scores >= context.correct_reward).tolist(),
        "advantage": advantages,
        **_row_columns(batch, context.tokenizer),
        **_token_columns(batch, context, actions, answers),
    }
    columns.update(_penalty_columns(batch, context, actions, answers, scores, columns["response_mask"]))
    info = json.dumps(step_info(batch, context)).encode()
    arrays = [_array(columns[entry.name], entry) for entry in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA.with_metadata({INFO_KEY: info}))


def _row_columns(batch: StepBatch, tokenizer: Any) -> dict[str, list[Any]]:
    """Return the columns that have one value a row and no numbers of the update."""
    facts = [batch.facts.get(key, {}) for key in batch.keys]
    prompts = batch.columns["prompts"]
    return {
        "data_source": [str(name) for name in _values(batch, "data_source", "unknown")],
        "question": [question_of(row) for row in _records(batch, "question", "extra_info", "raw_prompt")],
        "gold_answers": [gold_answers_of(model) for model in _values(batch, "reward_model", None)],
        "prompt": [tokenizer.decode(ids.tolist(), skip_special_tokens=False) for ids in prompts],
        "num_prompt_tokens": [len(ids) for ids in prompts],
        "answer": [_answer(fact) for fact in facts],
        "status": [fact.get("status") for fact in facts],
        "error": [fact.get("error", "") for fact in facts],
        "num_searches": [fact.get("num_searches") for fact in facts],
        "turns": [_turns(fact.get("turns", [])) for fact in facts],
    }


def _token_columns(
    batch: StepBatch, context: Context, actions: Sequence[Tensor], answers: Sequence[Tensor]
) -> dict[str, list[Any]]:
    # A failed trajectory's mask is empty, so that it carries no gradient; its actions are the policy's all the same.
    policy = [(row > 0).numpy() for row in actions]
    ids = [row.tolist() for row in batch.columns["responses"]]
    new = batch.columns.get("log_probs")
    return {
        "token_ids": ids,
        "tokens": [token_texts(row, context.tokenizer) for row in ids],
        "response_mask": policy,
        "answer_mask": [row.bool().numpy() for row in answers],
        "action_ids": [row.numpy() for row in actions],
        "old_log_probs": _on_policy(batch.columns["old_log_probs"], policy),
        "new_log_probs": [None] * len(ids) if new is None else _on_policy(new, policy),
    }


def _penalty_columns(
    batch: StepBatch,
    context: Context,
    actions: Sequence[Tensor],
    answers: Sequence[Tensor],
    scores: Tensor,
    policy: Sequence[Any],
) -> dict[str, list[Any]]:
    old = _padded(batch.columns["old_log_probs"])
    new = batch.columns.get("log_probs")
    found = token_penalties(
        old_log_prob=old,
        log_prob=old if new is None else _padded(new),
        advantages=_padded(batch.columns["advantages"]),
        response_mask=_padded(batch.columns["response_mask"]),
        action_ids=_padded(actions),
        answer_mask=_padded(answers),
        scores=scores,
        settings=context.llds,
        valid_searches=batch.valid_searches,
    )
    columns: dict[str, list[Any]] = {"preserved": found.preserved.tolist()}
    for name, values in (("gate", found.gate), ("penalty", found.penalty)):
        rows = [row[: len(mask)].numpy() for row, mask in zip(values, policy, strict=True)]
        columns[name] = [None] * len(rows) if new is None else rows
    return columns


def _turns(turns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the turn records with the position at which each begins."""
    start, found = 0, []
    for turn in turns:
        found.append({**turn, "start": start})
        start += turn["num_tokens"] + turn["num_observation_tokens"]
    return found


def _answer(fact: Mapping[str, Any]) -> str | None:
    last = (fact.get("turns") or [{}])[-1]
    return last.get("content") if last.get("kind") == ActionKind.ANSWER.value else None


def _advantage(row: Tensor, mask: Tensor) -> float | None:
    on_policy = row[mask.bool()]
    return float(on_policy[0]) if len(on_policy) else None


def _answer_masks(batch: StepBatch) -> Sequence[Tensor]:
    masks = batch.columns["response_mask"]
    return batch.columns.get("answer_mask") or [torch.zeros_like(mask) for mask in masks]


def _values(batch: StepBatch, name: str, default: Any) -> Sequence[Any]:
    return batch.columns.get(name) or [default] * len(batch.keys)


def _records(batch: StepBatch, *names: str) -> list[dict[str, Any]]:
    values = [_values(batch, name, None) for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def _fit(row: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(row[:length], (0, max(0, length - len(row))))


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return pad_sequence(list(rows), batch_first=True)


def _on_policy(rows: Sequence[Tensor], policy: Sequence[Any]) -> list[Any]:
    return [pa.array(row.float().numpy(), mask=~mask) for row, mask in zip(rows, policy, strict=True)]


def _array(values: Sequence[Any], entry: pa.Field) -> pa.Array:
    """Return a column; one of lists of numbers without a Python object for each."""
    if entry not in PER_TOKEN or entry.name in ("token_ids", "tokens") or values[0] is None:
        return pa.array(values, type=entry.type)
    offsets = pa.array(np.cumsum([0, *map(len, values)]), type=pa.int32())
    kind = entry.type.value_type
    flat = pa.chunked_array([row if isinstance(row, pa.Array) else pa.array(row) for row in values])
    return pa.ListArray.from_arrays(offsets, flat.cast(kind).combine_chunks())
