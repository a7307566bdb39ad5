"""Questions from parquet: what is read, and what is refused with file and row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from verl_llds.errors import EvaluationError
from verl_llds.evaluation.questions import first_of_each, read_questions
from verl_llds.evaluation.tables import describe_sets

from .conftest import question_row

Write = Callable[..., Path]


def test_ids_are_unique_among_merged_sets_whose_rows_count_anew(write_rows: Write) -> None:
    path = write_rows([question_row(0), question_row(0, "searchR1_hotpotqa"), question_row(1)])
    questions, (file,) = read_questions([path])
    assert [question.id for question in questions] == ["nq/test_0", "hotpotqa/test_0", "nq/test_1"]
    assert [question.number for question in questions] == [0, 1, 2]
    assert questions[0].targets == ("Paris",)
    assert file.num_rows == 3
    assert len(file.sha256) == 64


def test_a_lone_target_and_a_missing_id_are_read(write_rows: Write) -> None:
    row = question_row(4, reward_model={"ground_truth": {"target": "Oslo"}})
    del row["id"]
    ((question,), _) = read_questions([write_rows([row])])
    assert (question.id, question.targets) == ("nq/4", ("Oslo",))


@pytest.mark.parametrize("column", ["prompt", "data_source", "reward_model"])
def test_a_missing_column_is_named_with_those_there_are(write_rows: Write, column: str) -> None:
    row = question_row(0)
    del row[column]
    with pytest.raises(EvaluationError, match=rf"test\.parquet has no column {column}; it has .*extra_info"):
        read_questions([write_rows([row])])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"nowhere\.parquet is not there"):
        read_questions([tmp_path / "nowhere.parquet"])


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    path.write_text("no parquet")
    with pytest.raises(EvaluationError, match=r"test\.parquet cannot be read as parquet"):
        read_questions([path])


def test_no_questions_are_no_evaluation(write_rows: Write, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    full = write_rows([question_row(0)], "full.parquet")
    empty = tmp_path / "empty.parquet"
    pq.write_table(pq.read_table(full).slice(0, 0), empty)
    with pytest.raises(EvaluationError, match=r"empty\.parquet holds no questions"):
        read_questions([empty])


@pytest.mark.parametrize("target", [[], [" "], ""])
def test_empty_answers_are_named_by_row(write_rows: Write, target: object) -> None:
    bad = question_row(1, reward_model={"ground_truth": {"target": target}})
    good = question_row(0, reward_model={"ground_truth": {"target": "x" if target == "" else ["x"]}})
    with pytest.raises(EvaluationError, match=r"row 2: the accepted answers are empty"):
        read_questions([write_rows([good, bad])])


def test_a_prompt_that_is_no_chat_is_named_by_row(write_rows: Write) -> None:
    with pytest.raises(EvaluationError, match=r"row 1: the prompt is no list of messages"):
        read_questions([write_rows([question_row(0, prompt="Question?")])])


def test_an_id_that_comes_twice_is_named_with_both_places(write_rows: Write) -> None:
    first, second = write_rows([question_row(0)], "a.parquet"), write_rows([question_row(0)], "b.parquet")
    with pytest.raises(EvaluationError, match=r"b\.parquet, row 1: the id 'nq/test_0' is already that of .*a\.parquet"):
        read_questions([first, second])


def test_the_first_of_each_set_are_kept_and_described(write_rows: Write) -> None:
    rows = [*(question_row(n) for n in range(3)), question_row(0, "bamboogle"), question_row(0, "own")]
    questions, _ = read_questions([write_rows(rows)])
    kept = first_of_each(questions, 2)
    assert [question.id for question in kept] == ["nq/test_0", "nq/test_1", "bamboogle/test_0", "own/test_0"]
    assert describe_sets(kept) == {
        "nq": "2 of the published 3610 questions, test",
        "bamboogle": "1 of the published 125 questions, test",
        "own": "1 questions, test",
    }
