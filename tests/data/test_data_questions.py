"""One row: its layout, its question mark, its answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_llds.data.layouts import COLUMNS, LAYOUTS, layout_of
from verl_llds.data.question import Question, check_ids, make_question, with_question_mark
from verl_llds.errors import DataError


def read(row: dict[str, Any]) -> Question:
    layout = layout_of(row, "f:1")
    return make_question(row, layout=layout, source="nq", split="test", index=7, where="f:1")


AUTHORS: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "nq-open": ({"question": "q", "answer": ["a", "b"]}, "nq_test_7", ("a", "b")),
    "flashrag": ({"id": "test_3", "question": "q", "golden_answers": ["a"], "metadata": {}}, "nq_test_3", ("a",)),
    "triviaqa": (
        {
            "Question": "q",
            "QuestionId": "tc_2",
            "Answer": {"Value": "a", "Aliases": ["b", "a"]},
        },
        "nq_tc_2",
        ("a", "b"),
    ),
    "popqa": (
        {"id": "4222362", "question": "q", "possible_answers": '["a", "b"]'},
        "nq_4222362",
        ("a", "b"),
    ),
    "hotpotqa": ({"_id": "5a8b", "question": "q", "answer": "yes", "context": []}, "nq_5a8b", ("yes",)),
    "musique": (
        {"id": "2hop__1_2", "question": "q", "answer": "a", "answer_aliases": ["b"], "answerable": True},
        "nq_2hop__1_2",
        ("a", "b"),
    ),
    "bamboogle": ({"Question": "q", "Answer": "a"}, "nq_test_7", ("a",)),
    "verl": (
        {
            "data_source": "searchR1_nq",
            "extra_info": {"question": "q", "index": 0},
            "reward_model": {"ground_truth": {"target": ["a"]}, "style": "rule"},
        },
        "nq_test_7",
        ("a",),
    ),
}


@pytest.mark.parametrize("form", AUTHORS)
def test_every_published_form_is_read(form: str) -> None:
    row, id_, answers = AUTHORS[form]
    question = read(row)
    assert (question.id, question.text, question.answers) == (id_, "q?", answers)


def test_every_column_that_tells_a_layout_is_read_from_parquet() -> None:
    assert {name for layout in LAYOUTS for name in layout.columns} <= COLUMNS


@given(st.text())
def test_the_question_mark_rule_holds_once_and_for_all(text: str) -> None:
    marked = with_question_mark(text)
    assert marked.endswith("?")
    assert marked == marked.strip()
    assert with_question_mark(marked) == marked
    assert marked.removesuffix("?") in (text.strip(), text.strip().removesuffix("?"))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "", "answer": "a"}, "the question is ''"),
        ({"question": None, "answer": "a"}, "the question is None"),
        ({"question": "q", "answer": []}, "no answer"),
        ({"question": "q", "answer": None}, "no answer"),
        ({"question": "q", "golden_answers": ["", " "]}, "no answer"),
        ({"question": "q", "answer": 3}, "must be a text or a list of texts, got 3"),
        ({"question": "q", "answer": ["a", 3]}, "must be a text or a list of texts"),
        ({"question": "q", "possible_answers": "a"}, None),
        ({"question": "q", "answer": "a", "answerable": False}, "MuSiQue-Full"),
        ({"query": "q", "answers": ["a"]}, "in the columns query, answers"),
        ({"Question": "q", "QuestionId": "1", "Answer": {}}, "no answer"),
        ({"data_source": "nq", "extra_info": None, "reward_model": None}, "the question is None"),
    ],
)
def test_a_bad_row_is_refused_with_its_place(row: dict[str, Any], said: str | None) -> None:
    if said is None:
        assert read(row).answers == ("a",)
        return
    with pytest.raises(DataError, match=r"^f:1: ") as caught:
        read(row)
    assert said in str(caught.value)


def test_a_column_that_ends_half_way_is_named() -> None:
    layout = layout_of({"question": "q", "answer": "a"}, "f:1")
    with pytest.raises(DataError, match=r"^f:2: no column answer"):
        make_question({"question": "q"}, layout=layout, source="nq", split="test", index=1, where="f:2")


def test_blank_answers_beside_others_are_left_out_and_counted() -> None:
    question = read({"question": "q", "golden_answers": ["a", "", " "]})
    assert (question.answers, question.num_blank_answers) == (("a",), 2)


def test_what_this_package_wrote_keeps_its_ids() -> None:
    assert read({"id": "nq_test_3", "question": "q?", "golden_answers": ["a"]}).id == "nq_test_3"


def test_two_questions_with_one_id_are_refused_with_both_places() -> None:
    def question(where: str) -> Question:
        return Question(id="nq_1", source="nq", text="q?", answers=("a",), num_blank_answers=0, where=where)

    with pytest.raises(DataError, match=r"^f:9: the id nq_1 is taken by f:2"):
        check_ids([question("f:2"), question("f:9")])
