"""Answers against targets: if a case here changes, so do the rewards of every run."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Collection
from fractions import Fraction
from itertools import groupby
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from verl.utils.reward_score.search_r1_like_qa_em import em_check, subem_check

from verl_llds.reward.qa import exact_match, f1_score, normalize_answer, substring_match

NORMALIZED = {
    "case": ("Paris", "paris"),
    "white space": ("  The   Eiffel\tTower\n", "eiffel tower"),
    "articles": ("an apple a day", "apple day"),
    "article alone": ("A", ""),
    "small article alone": ("the", ""),
    "article begins a word": ("Theatre", "theatre"),
    "articles inside words": ("theme and Anna", "theme and anna"),
    "points": ("U.S.A.", "usa"),
    "quotes": ("rock 'n' roll!", "rock n roll"),
    "hyphen": ("twenty-one", "twentyone"),
    "article joined by a hyphen": ("the-end", "theend"),
    "thousands": ("1,000", "1000"),
    "currency": ("$5", "5"),
    "punctuation alone": ("...", ""),
    "nothing": ("", ""),
    "umlaut": ("Zürich", "zürich"),
    "accented capital": ("ÉCOLE", "école"),
    "typographic quotes": ("“curly” quotes", "“curly” quotes"),
    "Japanese": ("東京", "東京"),
    "no-break space": ("non\u00a0breaking", "non breaking"),
    "dotted capital I": ("İ", "i̇"),
    "article before an apostrophe": ("naïve a's", "naïve as"),
}

SCORED = {
    # prediction, targets, EM, sub-EM, F1
    "equal once normalised": ("the Paris.", ["Paris"], 1, 1, 1),
    "second of several": ("paris", ["Rome", "PARIS"], 1, 1, 1),
    "more than the target": ("Paris, France", ["Paris"], 0, 1, Fraction(2, 3)),
    "less than the target": ("Paris", ["Paris, France"], 0, 0, Fraction(2, 3)),
    "letter of a lone target": ("P", "Paris", 0, 0, 0),
    "lone target": ("Paris", "Paris", 1, 1, 1),
    "accent missing": ("Zurich", ["Zürich"], 0, 0, 0),
    "other order": ("Washington George", ["George Washington"], 0, 0, 1),
    "inside a word": ("Jerome", ["Rome"], 0, 1, 0),
    "best of the targets": ("New York City", ["York", "New York"], 0, 1, Fraction(4, 5)),
    "counted as often as it occurs": ("Paris Paris Paris", ["Paris"], 0, 1, Fraction(1, 2)),
    "two of three on either side": ("red green blue", ["green blue black"], 0, 0, Fraction(2, 3)),
    "yes for yes": ("Yes.", ["yes"], 1, 1, 1),
    "yes and more": ("yes it is", ["yes"], 0, 1, 0),
    "no for a longer target": ("no", ["no idea"], 0, 0, 0),
    "noanswer": ("noanswer", ["noanswer given"], 0, 0, 0),
    "yes within a longer target": ("yes minister", ["yes prime minister"], 0, 0, Fraction(4, 5)),
    "one closed target of two": ("no entry", ["no", "entry"], 0, 1, Fraction(2, 3)),
    "no prediction": (None, ["Paris"], 0, 0, 0),
    "empty prediction": ("", ["Paris"], 0, 0, 0),
    "no targets": ("Paris", [], 0, 0, 0),
    "no prediction, empty target": (None, [""], 0, 0, 0),
    "empty prediction, empty target": ("", ["The"], 0, 0, 0),
    "blank prediction, empty target": (" \n", ["The"], 0, 0, 0),
    "two articles": ("The", ["A"], 1, 1, 1),
    "empty target among others": ("Paris", ["The", "Rome"], 0, 0, 0),
}

WORDS = ("the", "A", "an", "Paris", "paris.", "new", "York", "yes", "no", "noanswer", "(a)", "-", "é", "É", "Σ", "x_y")
phrases = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)
texts = phrases | st.text(max_size=12)
spoken = texts.filter(lambda text: bool(text.strip()))
target_lists = st.lists(texts, max_size=3)


def numbered(cases: Collection[str]) -> list[str]:
    return [f"{number}-{name}" for number, name in enumerate(cases, start=1)]


def slowly_normalized(text: str) -> list[str]:
    """Return the tokens, letter by letter: a run of letters and digits that is an article is dropped."""
    kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    runs = ["".join(run) for _, run in groupby(kept, key=str.isalnum)]
    return "".join(" " if run in ("a", "an", "the") else run for run in runs).split()


def slow_f1(prediction: str, target: str) -> Fraction:
    given, wanted = slowly_normalized(prediction), slowly_normalized(target)
    if [] in (given, wanted):
        return Fraction(given == wanted)
    if given != wanted and any(text in (["yes"], ["no"], ["noanswer"]) for text in (given, wanted)):
        return Fraction(0)
    left = list(wanted)
    for token in given:
        if token in left:
            left.remove(token)
    same = len(wanted) - len(left)
    if same == 0:
        return Fraction(0)
    precision, recall = Fraction(same, len(given)), Fraction(same, len(wanted))
    return 2 / (1 / precision + 1 / recall)


@pytest.mark.parametrize(("text", "normalized"), NORMALIZED.values(), ids=numbered(NORMALIZED))
def test_normalization(text: str, normalized: str) -> None:
    assert normalize_answer(text) == normalized


@given(st.text(), st.text())
def test_normalization_ignores_case_of_articles_and_space(left: str, right: str) -> None:
    assert normalize_answer(f"{left} the  {right}") == normalize_answer(f"{left}\nA {right}")


@given(texts)
def test_normalization_is_that_of_a_slow_reference(text: str) -> None:
    assert normalize_answer(text).split() == slowly_normalized(text)


@pytest.mark.parametrize(("prediction", "targets", "em", "sub_em", "f1"), SCORED.values(), ids=numbered(SCORED))
def test_scores(prediction: str | None, targets: list[str] | str, em: int, sub_em: int, f1: Fraction) -> None:
    assert exact_match(prediction, targets) == em
    assert substring_match(prediction, targets) == sub_em
    assert f1_score(prediction, targets) == pytest.approx(float(f1), rel=1e-15)


@pytest.mark.parametrize("metric", [exact_match, substring_match, f1_score])
def test_targets_as_parquet_returns_them_and_any_other_iterable(metric: Callable[..., float]) -> None:
    assert metric("Paris", np.array(["Rome", "Paris"], dtype=object)) == 1.0
    assert metric("Paris", iter(["Rome", "Paris"])) == 1.0


@given(spoken, target_lists)
def test_exact_match_is_verls_and_that_of_a_slow_reference(prediction: str, targets: list[str]) -> None:
    result = exact_match(prediction, targets)
    assert result == em_check(prediction, targets)
    assert result == any(slowly_normalized(prediction) == slowly_normalized(target) for target in targets)


@given(spoken, target_lists)
def test_substring_match_is_verls_where_the_targets_say_something(prediction: str, targets: list[str]) -> None:
    targets = [target for target in targets if normalize_answer(target)]
    assert substring_match(prediction, targets) == subem_check(prediction, targets)


def test_where_this_differs_from_verl() -> None:
    assert (subem_check("anything", ["The"]), substring_match("anything", ["The"])) == (1, 0)
    assert (em_check("", ["The"]), exact_match("", ["The"])) == (1, 0)


@given(spoken, target_lists)
def test_f1_is_that_of_a_slow_reference(prediction: str, targets: list[str]) -> None:
    slow = max((slow_f1(prediction, target) for target in targets), default=Fraction(0))
    assert f1_score(prediction, targets) == pytest.approx(float(slow), rel=1e-15)


@given(spoken, spoken)
def test_all_but_sub_em_are_symmetric(left: str, right: str) -> None:
    assert exact_match(left, [right]) == exact_match(right, [left])
    assert f1_score(left, [right]) == f1_score(right, [left])


@given(st.none() | texts, target_lists)
def test_metrics_keep_their_order_and_range(prediction: str | None, targets: list[str]) -> None:
    em, sub_em, f1 = (metric(prediction, targets) for metric in (exact_match, substring_match, f1_score))
    assert {em, sub_em} <= {0.0, 1.0}
    assert 0 <= f1 <= 1
    assert em <= sub_em
    assert em <= f1


@given(phrases.filter(bool), phrases, st.randoms())
def test_f1_is_one_if_and_only_if_the_tokens_are_the_same(left: str, right: str, random: Random) -> None:
    same = Counter(slowly_normalized(left)) == Counter(slowly_normalized(right))
    assert (f1_score(left, right) == 1) == same
    shuffled = left.split()
    random.shuffle(shuffled)
    assert f1_score(left, " ".join(shuffled)) == 1


@given(spoken, target_lists, texts)
def test_one_more_target_never_lowers_a_score(prediction: str, targets: list[str], more: str) -> None:
    for metric in (exact_match, substring_match, f1_score):
        assert metric(prediction, [*targets, more]) == max(metric(prediction, targets), metric(prediction, [more]))
