"""Exact match: if a case here changes, so do the rewards of every run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_llds.reward.qa import exact_match, normalize_answer


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("Paris", "paris"),
        ("  The   Eiffel\tTower\n", "eiffel tower"),
        ("an apple a day", "apple day"),
        ("A", ""),
        ("the", ""),
        ("Theatre", "theatre"),
        ("theme and Anna", "theme and anna"),
        ("U.S.A.", "usa"),
        ("rock 'n' roll!", "rock n roll"),
        ("twenty-one", "twentyone"),
        ("the-end", "theend"),
        ("1,000", "1000"),
        ("$5", "5"),
        ("...", ""),
        ("", ""),
        ("Zürich", "zürich"),
        ("ÉCOLE", "école"),
        ("“curly” quotes", "“curly” quotes"),
        ("東京", "東京"),
        ("non\u00a0breaking", "non breaking"),
        ("İ", "i̇"),
        ("naïve a's", "naïve as"),
    ],
)
def test_normalization(text: str, normalized: str) -> None:
    assert normalize_answer(text) == normalized


@given(st.text(), st.text())
def test_normalization_ignores_case_of_articles_and_space(left: str, right: str) -> None:
    assert normalize_answer(f"{left} the  {right}") == normalize_answer(f"{left}\nA {right}")


@pytest.mark.parametrize(
    ("prediction", "targets", "score"),
    [
        ("the Paris.", ["Paris"], 1.0),
        ("paris", ["Rome", "PARIS"], 1.0),
        ("Paris, France", ["Paris"], 0.0),
        ("P", "Paris", 0.0),
        ("Paris", "Paris", 1.0),
        ("Zurich", ["Zürich"], 0.0),
        ("", ["Paris"], 0.0),
        ("The", ["A"], 1.0),
        (None, ["Paris"], 0.0),
        (None, [""], 0.0),
        ("Paris", [], 0.0),
    ],
)
def test_exact_match(prediction: str | None, targets: list[str] | str, score: float) -> None:
    assert exact_match(prediction, targets) == score


def test_targets_as_parquet_returns_them() -> None:
    assert exact_match("Paris", np.array(["Rome", "Paris"], dtype=object)) == 1.0
