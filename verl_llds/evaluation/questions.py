"""Questions from parquet files in verl's schema, Search-R1's test file among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verl_llds.data.files import sha256_file
from verl_llds.errors import EvaluationError
from verl_llds.reward.sources import canonical_source
from verl_llds.search.facts import row_targets

_NEEDED = ("prompt", "data_source", "reward_model")
_USED = (*_NEEDED, "id", "extra_info")
_REMEDY = "make it with `verl-llds data prepare`, which writes verl's schema"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One question with its accepted answers."""

    id: str
    """Unique among all files: set and row id, such as ``nq/test_0``."""
    source: str
    """Canonical name of its set."""
    split: str
    """Split it comes from; empty if its row does not say."""
    messages: tuple[Mapping[str, Any], ...]
    """The chat it is asked in."""
    targets: tuple[str, ...]
    """The accepted answers."""
    number: int
    """Place in the order of all files, from 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionFile:
    """A file that questions were read from."""

    path: Path
    """Where it lies."""
    sha256: str
    """Hash of its bytes."""
    num_rows: int
    """Its questions."""


def read_questions(paths: Sequence[Path]) -> tuple[list[Question], list[QuestionFile]]:
    """Read all questions, in the order of files and rows.

    Raises:
        EvaluationError: naming the file, and the row counted from 1, for a file that is missing or not parquet, a
            missing column, a row without question or answer, and an id that occurs twice.
    """
    questions: list[Question] = []
    files: list[QuestionFile] = []
    places: dict[str, str] = {}
    for path in paths:
        found = list(_questions(path, len(questions)))
        for row, question in enumerate(found, start=1):
            here = f"{path}, row {row}"
            if question.id in places:
                raise EvaluationError(
                    f"{here}: the id {question.id!r} is already that of {places[question.id]}: give each question of a "
                    "set an id of its own, or name the file once"
                )
            places[question.id] = here
        questions += found
        files.append(QuestionFile(path=path, sha256=sha256_file(path), num_rows=len(found)))
    return questions, files


def first_of_each(questions: Sequence[Question], count: int) -> list[Question]:
    """Return the first questions of each set."""
    seen: Counter[str] = Counter()
    kept = []
    for question in questions:
        seen[question.source] += 1
        if seen[question.source] <= count:
            kept.append(question)
    return kept


def _questions(path: Path, start: int) -> Iterator[Question]:
    for row, values in enumerate(_rows(path)):
        yield _question(values, start + row, f"{path}, row {row + 1}")


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise EvaluationError(f"{path} is not there: --data takes parquet files; {_REMEDY}")
    try:
        names = pq.read_schema(path).names
        missing = [name for name in _NEEDED if name not in names]
        if missing:
            raise EvaluationError(
                f"{path} has no column {', '.join(missing)}; it has {', '.join(names) or 'none'}: {_REMEDY}"
            )
        rows: list[dict[str, Any]] = pq.read_table(path, columns=[name for name in _USED if name in names]).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise EvaluationError(f"{path} cannot be read as parquet ({error}): {_REMEDY}") from error
    if not rows:
        raise EvaluationError(f"{path} holds no questions: {_REMEDY}")
    return rows


def _question(row: dict[str, Any], number: int, where: str) -> Question:
    messages = row["prompt"]
    if not isinstance(messages, list) or not messages or not all(_is_message(one) for one in messages):
        raise EvaluationError(f"{where}: the prompt is no list of messages with role and content: {_REMEDY}")
    try:
        targets = row_targets(row)
    except (KeyError, TypeError) as error:
        raise EvaluationError(f"{where}: there is no reward_model.ground_truth.target: {_REMEDY}") from error
    if not targets or not all(isinstance(target, str) and target.strip() for target in targets):
        raise EvaluationError(f"{where}: the accepted answers are empty: {targets!r}; mend or drop the row")
    facts = row.get("extra_info") or {}
    source = canonical_source(str(row["data_source"]))
    own = row.get("id")
    if own is None:
        own = facts.get("index", number)
    return Question(
        id=f"{source}/{own}",
        source=source,
        split=str(facts.get("split") or ""),
        messages=tuple(messages),
        targets=tuple(targets),
        number=number,
    )


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)
