"""The parquet files: verl's schema with Search-R1's columns.

There is no column ``agent_name``: verl would look every row's agent loop up by it, and an empty one stops the
rollout. Without it, ``actor_rollout_ref.rollout.agent.default_agent_loop`` decides, which ``search=`` sets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verl_llds.data.files import replacing
from verl_llds.data.published import Split
from verl_llds.data.question import Question
from verl_llds.search.search_r1 import PROMPT_TEMPLATE

if TYPE_CHECKING:
    import pyarrow as pa

ABILITY = "fact-reasoning"
"""Search-R1's value of the column."""

_BATCH_ROWS = 10_000


def make_row(question: Question, split: Split, index: int, set_index: int) -> dict[str, Any]:
    """Return a row of the file.

    Args:
        question: what is asked.
        split: whether the file is to train or to test on.
        index: number of the row in the file, from 0. Search-R1's trainer takes it as the number of the prompt, so in
            its merged file, where every set counts from 0, two prompts share a group now and then.
        set_index: number of the row among its set's, from 0.
    """
    answers = list(question.answers)
    return {
        "id": question.id,
        "question": question.text,
        "golden_answers": answers,
        "data_source": question.source,
        "prompt": [{"role": "user", "content": PROMPT_TEMPLATE.format(question=question.text)}],
        "ability": ABILITY,
        "reward_model": {"style": "rule", "ground_truth": {"target": answers}},
        "extra_info": {"split": split.value, "index": index, "set_index": set_index},
    }


def schema() -> pa.Schema:
    """Return the columns."""
    import pyarrow as pa

    texts = pa.list_(pa.string())
    truth = pa.struct([("target", texts)])
    return pa.schema(
        [
            ("id", pa.string()),
            ("question", pa.string()),
            ("golden_answers", texts),
            ("data_source", pa.string()),
            ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
            ("ability", pa.string()),
            ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", truth)])),
            ("extra_info", pa.struct([("split", pa.string()), ("index", pa.int64()), ("set_index", pa.int64())])),
        ]
    )


def write_questions(path: Path, split: Split, sets: Sequence[Sequence[Question]]) -> None:
    """Write the questions of the sets, one set after the other, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [(question, set_index) for questions in sets for set_index, question in enumerate(questions)]
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema()) as writer:
        for start in range(0, len(rows), _BATCH_ROWS):
            batch = [
                make_row(question, split, start + number, set_index)
                for number, (question, set_index) in enumerate(rows[start : start + _BATCH_ROWS])
            ]
            writer.write_table(pa.Table.from_pylist(batch, schema=schema()))


def rows_sha256(questions: Sequence[Question]) -> str:
    """Return the hex SHA-256 of what is asked and what is right, whatever wrote the parquet file."""
    digest = hashlib.sha256()
    for question in questions:
        digest.update(json.dumps([question.id, question.source, question.text, list(question.answers)]).encode())
        digest.update(b"\n")
    return digest.hexdigest()
