"""The columns of a file of token-level trajectories: one Parquet file a step, one row a trajectory.

Lists that are per token have one element for each token of the response, policy and observation alike. The
displacement is not stored: it is ``old_log_probs - new_log_probs``, positive where the likelihood fell.
"""

from __future__ import annotations

import pyarrow as pa

FORMAT = 1
"""Version of the columns; raised when a reader of an older one would misread them."""

INFO_KEY = b"verl_llds"
"""Key of a file's metadata that holds `verl_llds.trajectories.rows.step_info` as JSON."""

TURN = pa.struct(
    [
        # verl_llds.search.protocol.ActionKind: call, answer, invalid
        ("kind", pa.string()),
        # verl_llds.search.trajectory.TurnStatus: result, answer, invalid, not_called, failed
        ("status", pa.string()),
        # The tool called, or empty
        ("tool", pa.string()),
        # Query, another tool's argument, or answer
        ("content", pa.string()),
        # Ids of the passages found
        ("documents", pa.list_(pa.string())),
        # Position in the response of its first token
        ("start", pa.int32()),
        # Policy tokens
        ("num_tokens", pa.int32()),
        # Tokens of the reply, which follow at once
        ("num_observation_tokens", pa.int32()),
        # Whether part of the result did not fit into the reply
        ("is_truncated", pa.bool_()),
        # Requests made; 0 where the answer was known from the same step
        ("attempts", pa.int32()),
        # Seconds the tool took
        ("latency_s", pa.float32()),
    ]
)
"""One turn of a trajectory."""

PER_TOKEN = (
    pa.field("token_ids", pa.list_(pa.int32())),
    # Text of each token; joined, they are the response's text. A character that several tokens share is the last one's
    pa.field("tokens", pa.list_(pa.string())),
    # Whether the policy wrote it
    pa.field("response_mask", pa.list_(pa.bool_())),
    # Whether it belongs to the final answer, tags included
    pa.field("answer_mask", pa.list_(pa.bool_())),
    # Number of its action from 1; 0 on observations
    pa.field("action_ids", pa.list_(pa.int32())),
    # Before the update; null on observations
    pa.field("old_log_probs", pa.list_(pa.float32())),
    # After it; null on observations, and the whole list where nothing was measured, like the next two
    pa.field("new_log_probs", pa.list_(pa.float32())),
    # Whether the penalty is open on it
    pa.field("gate", pa.list_(pa.bool_())),
    # Nats it pays: answer weight times what it fell beyond the tolerance where the gate is open; not times coef
    pa.field("penalty", pa.list_(pa.float32())),
)
"""Columns with one element a token."""

SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        # Unique within the step
        ("key", pa.string()),
        # Of its group: siblings share it
        ("uid", pa.string()),
        ("data_source", pa.string()),
        ("question", pa.string()),
        ("gold_answers", pa.list_(pa.string())),
        # As rendered, special tokens included
        ("prompt", pa.string()),
        ("num_prompt_tokens", pa.int32()),
        # Null where none was given
        ("answer", pa.string()),
        # The reward
        ("score", pa.float32()),
        # Whether the reward reaches diagnostics.correct_reward
        ("correct", pa.bool_()),
        # Null where no token is the policy's
        ("advantage", pa.float32()),
        # Whether it belongs to the preserving set of LLDS
        ("preserved", pa.bool_()),
        # verl_llds.search.trajectory.EpisodeStatus; null for other agent loops
        ("status", pa.string()),
        # What went wrong, if the environment failed
        ("error", pa.string()),
        # Searches that found passages; null for other agent loops
        ("num_searches", pa.int32()),
        ("turns", pa.list_(TURN)),
        *PER_TOKEN,
    ]
)
"""All columns."""
