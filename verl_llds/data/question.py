"""One question, as it is checked and written: the question mark rule, answers that are some, ids that differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from verl_llds.data.layouts import Layout, Row, id_of
from verl_llds.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question of one set."""

    id: str
    """Unique among the questions of a file: set, underscore, the id in the source."""
    source: str
    """Name of its set; verl's ``data_source``."""
    text: str
    """The question, with its question mark."""
    answers: tuple[str, ...]
    """Every answer that counts as right; at least one, none of them blank."""
    num_blank_answers: int
    """Blank ones among the published answers, which are left out."""
    where: str
    """Its place in the source, for messages."""


def with_question_mark(text: str) -> str:
    """Return the question without white space around it and with a "?" at its end.

    Search-R1's rule (``scripts/data_process/qa_search_train_merge.py``): NQ's questions have none.
    """
    stripped = text.strip()
    return stripped if stripped.endswith("?") else f"{stripped}?"


def make_question(row: Row, *, layout: Layout, source: str, split: str, index: int, where: str) -> Question:
    """Check one row.

    Args:
        row: one row of a file in the layout.
        layout: the form of the file's rows.
        source: name of the set.
        split: name of the split, for the id of a row that has none.
        index: number of the row among its set's, from 0.
        where: the place of the row.

    Raises:
        DataError: naming the place, for a column that is missing or of another type, a blank question, no answer.
    """
    layout.check(row, where)
    if row.get("answerable") is False:
        raise DataError(f"{where}: a question without an answer (MuSiQue-Full): give the files musique_ans_v1.0_*")
    text = layout.question(row)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: the question is {text!r}: fill it in, or delete the row and add --allow-partial")
    answers = _answers(layout.answers(row), where)
    kept = tuple(answer for answer in answers if answer.strip())
    if not kept:
        raise DataError(
            f"{where}: no answer, so nothing can be right: delete the row and add --allow-partial; "
            "if no row has one, these are test questions whose answers are not public: give the dev file"
        )
    id_ = id_of(row)
    return Question(
        id=f"{source}_{f'{split}_{index}' if id_ is None else str(id_).removeprefix(f'{source}_')}",
        source=source,
        text=with_question_mark(text),
        answers=kept,
        num_blank_answers=len(answers) - len(kept),
        where=where,
    )


def _answers(value: object, where: str) -> list[str]:
    answers = [value] if isinstance(value, str) else value
    if answers is None:
        return []
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise DataError(f"{where}: the answers must be a text or a list of texts, got {value!r:.80}: mend the row")
    return answers


def check_ids(questions: Iterable[Question]) -> None:
    """Refuse two questions with one id.

    Raises:
        DataError: naming both places.
    """
    first: dict[str, str] = {}
    for question in questions:
        if (where := first.setdefault(question.id, question.where)) != question.where:
            raise DataError(
                f"{question.where}: the id {question.id} is taken by {where}: delete one of the two, "
                "or fetch the file again"
            )
