"""The columns in which questions are published: from a row to question, answers and id.

A layout is known by its columns, not by the set: FlashRAG's files of all seven sets look alike, and so do those of
HotpotQA, 2WikiMultihopQA and MuSiQue.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from verl_llds.errors import DataError

COLUMNS = frozenset(
    {
        "id",
        "_id",
        "QuestionId",
        "question",
        "Question",
        "answer",
        "Answer",
        "answer_aliases",
        "answerable",
        "golden_answers",
        "possible_answers",
        "data_source",
        "extra_info",
        "reward_model",
    }
)
"""Every column that some layout reads."""

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One form of a row."""

    name: str
    """Whose form it is; goes into the manifest and into messages."""
    columns: tuple[str, ...]
    """Columns that a row must have; they also tell which layout a file is in."""
    question: Callable[[Row], object]
    """Returns the question, unchecked."""
    answers: Callable[[Row], object]
    """Returns the answer or the list of them, unchecked."""

    def check(self, row: Row, where: str) -> None:
        """Refuse a row without the columns.

        Raises:
            DataError: naming the place and the columns.
        """
        missing = [name for name in self.columns if name not in row]
        if missing:
            raise DataError(
                f"{where}: no column {', '.join(missing)}, which the rows before have ({self.name}): "
                f"its columns are {', '.join(map(str, row))}; mend the row or fetch the file again"
            )


def _several(row: Row, first: object, others: object) -> object:
    """Return the answer and its aliases, each once."""
    if not isinstance(others, list):
        return first
    return list(dict.fromkeys([first, *others])) if all(isinstance(other, str) for other in others) else others


def _triviaqa(row: Row) -> object:
    answer = row["Answer"]
    return _several(row, answer.get("Value"), answer.get("Aliases")) if isinstance(answer, dict) else answer


def _popqa(row: Row) -> object:
    answers = row["possible_answers"]
    if not isinstance(answers, str):
        return answers
    try:
        return json.loads(answers)
    except ValueError:
        return answers


def _verl_question(row: Row) -> object:
    return row["extra_info"].get("question") if isinstance(row["extra_info"], dict) else None


def _verl_answers(row: Row) -> object:
    model = row["reward_model"]
    truth = model.get("ground_truth") if isinstance(model, dict) else None
    return truth.get("target") if isinstance(truth, dict) else None


LAYOUTS = (
    Layout(
        name="FlashRAG or Search-R1",
        columns=("question", "golden_answers"),
        question=lambda row: row["question"],
        answers=lambda row: row["golden_answers"],
    ),
    Layout(
        name="verl",
        columns=("data_source", "extra_info", "reward_model"),
        question=_verl_question,
        answers=_verl_answers,
    ),
    Layout(
        name="TriviaQA",
        columns=("Question", "Answer", "QuestionId"),
        question=lambda row: row["Question"],
        answers=_triviaqa,
    ),
    Layout(
        name="Bamboogle",
        columns=("Question", "Answer"),
        question=lambda row: row["Question"],
        answers=lambda row: row["Answer"],
    ),
    Layout(
        name="PopQA",
        columns=("question", "possible_answers"),
        question=lambda row: row["question"],
        answers=_popqa,
    ),
    Layout(
        name="NQ-open, HotpotQA, 2WikiMultihopQA or MuSiQue",
        columns=("question", "answer"),
        question=lambda row: row["question"],
        answers=lambda row: _several(row, row["answer"], row.get("answer_aliases")),
    ),
)
"""What can be read; the first one whose columns a file's first row has is that file's."""


def layout_of(row: Row, where: str) -> Layout:
    """Return the layout of a file's first row.

    Raises:
        DataError: if there is none, naming the columns that are there and those that would do.
    """
    for layout in LAYOUTS:
        if all(name in row for name in layout.columns):
            return layout
    known = "; ".join(f"{' + '.join(layout.columns)} ({layout.name})" for layout in LAYOUTS)
    raise DataError(
        f"{where}: no question with answers in the columns {', '.join(map(str, row))}: rename them; known are {known}"
    )


def id_of(row: Row) -> object:
    """Return the id of a row under any of the names it has, or None if it has none."""
    return next((row[name] for name in ("id", "_id", "QuestionId") if row.get(name) is not None), None)
